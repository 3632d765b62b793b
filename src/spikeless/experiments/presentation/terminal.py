"""A comparison on the terminal: a table a shape, warnings, where techniques did not help; legible from 80 columns."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from spikeless.experiments.analysis.comparison import Comparison
from spikeless.experiments.analysis.remarks import not_helping, warnings
from spikeless.experiments.analysis.summary import ArmRow, arm_rows, baseline_of
from spikeless.experiments.presentation import wording
from spikeless.words import EMPTY, number

__all__ = ["render"]

SHOWN = 8  # lines of "did not help"
DIGITS = 3
TITLES = (  # narrow enough for 80 columns
    "arm",
    "seeds",
    "best\nlr",
    "val loss\n[nats\n/token]",
    "to base-\nline",
    "largest\nstable\nlr",
    "head-\nroom",
    "sensi-\ntivity",
    "loss\nspikes",
    "tokens\n/s",
)


def render(comparison: Comparison) -> Group:
    """The whole comparison in a few lines; the page has the rest."""
    parts: list[RenderableType] = [Text(wording.one_line(comparison), style="bold")]
    for (depth, width), rows in groupby(arm_rows(comparison), key=lambda row: row.shape):
        parts += [Text(), Text(wording.shape(depth, width), style="bold"), _table(list(rows), baseline_of(comparison))]
    parts += [Text(f"{source}: {said}") for source, said in comparison.about.sources.items()]
    parts += [Text.assemble(("! ", "yellow"), each) for each in warnings(comparison)]
    return Group(*parts, *_not_helping(not_helping(comparison)))


def _table(rows: Sequence[ArmRow], baseline: str) -> Table:
    caption = (
        "at the best lr, mean ± half of the 95 % interval, or the median where a seed failed; "
        f"difference to {baseline}, each at its own best lr: median and p"
    )
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, caption=caption, caption_justify="left")
    for title in TITLES:
        text = title == "arm"
        table.add_column(escape(title), justify="left" if text else "right", overflow="fold", no_wrap=not text)
    for row in rows:
        ending = _ending(row)
        name = Text(row.arm.replace("+", "\n+"))
        if ending:
            name.append(f"\n{ending}", "red" if row.failed else "yellow")
        texts = [
            str(row.seeds),
            _lr(row),
            _two(_loss(row)),
            _two(wording.difference(row.own_lr, DIGITS)),
            wording.stable(row),
            wording.headroom(row),
            EMPTY if row.sensitivity is None else f"{row.sensitivity:.2f}",
            str(row.spikes["loss"].count) if "loss" in row.spikes else EMPTY,
            wording.ratio(row.speed_ratio)[0],
        ]
        table.add_row(name, *map(escape, texts))
    return table


def _loss(row: ArmRow) -> tuple[str, str]:
    value, aside = wording.loss(row, DIGITS)
    return value, "median" if row.best_failed else aside


def _lr(row: ArmRow) -> str:
    marks = {"low": " ↓", "high": " ↑"}
    return number(row.best_lr) + marks.get(row.edge, "")


def _ending(row: ArmRow) -> str:
    counts = {"failed": row.failed, "not ended": row.unfinished}
    return "\n".join(f"{count}/{row.runs} {what}" for what, count in counts.items() if count)


def _two(cell: tuple[str, str]) -> str:
    return "\n".join(filter(None, cell))


def _not_helping(found: Sequence[str]) -> Iterator[RenderableType]:
    if not found:
        return
    yield Text()
    yield Text("Where it did not help", style="bold")
    for each in found[:SHOWN]:
        yield Text(f"- {each}")
    if found[SHOWN:]:
        yield Text(f"and {len(found) - SHOWN} more: see the report")
