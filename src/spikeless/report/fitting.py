"""A table for a terminal of any width that never cuts a number."""

from collections.abc import Collection, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

__all__ = ["FittingTable"]

LEAST_WIDTH = 18
"""Of a column of words, which are folded [characters]."""


class FittingTable:
    """A table that leaves columns out, and says which, where its numbers do not fit side by side.

    Args:
        titles: heading of each column, in order; a line break keeps a column narrow.
        rows: a cell for each column.
        words: columns of words, which are folded and stand on the left.
        least: columns that may be left out, the least important one first.
        caption: what stands below.
    """

    def __init__(
        self,
        titles: Mapping[str, str],
        rows: Sequence[Mapping[str, str | Text]],
        *,
        words: Collection[str],
        least: Sequence[str] = (),
        caption: str = "",
    ) -> None:
        self._titles, self._words, self._least, self._caption = titles, words, least, caption
        self._rows = [{key: Text.assemble(row[key]) for key in titles} for row in rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, as wide as the terminal allows."""
        widths = {key: self._width(key) for key in self._titles}
        left_out = []
        for key in (key for key in self._least if key in widths):
            if sum(widths.values()) + len(widths) + 1 <= options.max_width:
                break
            left_out.append(key)
            del widths[key]
        words = [key for key in widths if key in self._words]
        room = options.max_width - sum(widths.values()) - len(widths) - 1
        if room < 0 and words:  # a narrow terminal
            widths |= {key: max(1, widths[key] + room // len(words)) for key in words}
        table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, caption=self._caption or None)
        for key, width in widths.items():
            if key in self._words:
                table.add_column(Text(self._titles[key]), overflow="fold", min_width=width)
            else:
                table.add_column(Text(self._titles[key]), justify="right", no_wrap=True)
        for row in self._rows:
            table.add_row(*(row[key] for key in widths))
        yield table
        if left_out:
            titles = (self._titles[key].replace("-\n", "").replace("\n/", "/") for key in left_out)
            names = ", ".join(" ".join(title.split()) for title in titles)
            yield Text(f"left out, since they do not fit into {options.max_width} columns: {names}", style="dim")

    def _width(self, key: str) -> int:
        """What a column takes at least [characters]."""
        texts = [self._titles[key], *(row[key].plain for row in self._rows)]
        longest = max(cell_len(line) for each in texts for line in each.split("\n"))
        return min(longest, LEAST_WIDTH) if key in self._words else longest
