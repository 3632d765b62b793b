"""What every figure has in common: axes, and lines that differ in colour, pattern and marker.

The colours themselves belong to the page (page.css, page.js).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

__all__ = ["NOT_FINITE", "NO_PLACE", "Figure", "Line", "figure"]

NO_PLACE, NOT_FINITE = "values that are not above zero", "values that are not finite"
"""Said of a figure whose axis has no place for some of its values."""
TINY = 1e-3  # an axis of such values has its ticks as powers of ten
DECADES_125 = (0.7, 3.0)  # a logarithmic axis of such a length has its ticks at 1, 2 and 5

# How plotly and an SVG swatch call a dash and a marker. Lengths without a common factor with the colours'
# number, so that two arms share all three only after 105 of them. The colours themselves are in page.css.
COLORS = 7
DASHES = (("solid", "none"), ("dash", "7 4"), ("dot", "2 3"), ("dashdot", "7 3 2 3"), ("longdash", "11 4"))
MARKERS = (("circle", "●"), ("square", "■"), ("diamond", "◆"))


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line style, and a name for it."""

    name: str
    index: int

    @property
    def color(self) -> int:
        """Which of the style sheet's arm colours it has."""
        return self.index % COLORS

    @property
    def dash(self) -> str:
        """Its line's pattern, for plotly."""
        return DASHES[self.index % len(DASHES)][0]

    @property
    def dash_array(self) -> str:
        """Its line's pattern, for SVG."""
        return DASHES[self.index % len(DASHES)][1]

    @property
    def marker(self) -> str:
        """Its marker, for plotly."""
        return MARKERS[self.index % len(MARKERS)][0]

    @property
    def glyph(self) -> str:
        """Its marker, as a character."""
        return MARKERS[self.index % len(MARKERS)][1]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A titled plot; `note` says what is drawn, in half a line, and `lines` are those of a legend of its own."""

    title: str
    plot: go.Figure
    note: str = ""
    lines: tuple[Line, ...] = ()


def figure(
    plot: go.Figure,
    title: str,
    *,
    x: str,
    y: str,
    hover: str,
    log: bool = False,
    log_x: bool = False,
    note: str = "",
    lines: tuple[Line, ...] = (),
) -> Figure:
    """A figure of the common look.

    Args:
        plot: its lines; each has `meta` with the index and the colour of what it belongs to.
        title: what it shows.
        x: title of the horizontal axis, with the unit.
        y: title of the vertical axis, with the unit.
        hover: heading of the hover box, such as `step %{x:,d}`.
        log: a logarithmic vertical axis, if a value is above zero; where others are not, the lines have gaps.
        log_x: likewise, the horizontal axis.
        note: what is drawn, in half a line.
        lines: of a legend that belongs to this figure alone.
    """
    plot.update_layout(
        template="none",
        showlegend=False,
        hovermode="x unified",
        margin={"l": 64, "r": 12, "t": 28, "b": 44},
        uirevision="keep",  # a redraw in other colours keeps the zoom
        meta={"hover": hover},
    )
    plot.update_xaxes(title={"text": x}, automargin=True, zeroline=False)
    plot.update_yaxes(title={"text": y}, automargin=True, zeroline=False)
    log, log_x = log and _has_positive(plot, "y"), log_x and _has_positive(plot, "x")
    gaps = [_leave_gaps(plot, axis) for axis, logarithmic in (("y", log), ("x", log_x)) if logarithmic]
    if log:
        plot.update_yaxes(type="log", tickformat=_tick_format(plot, "y"), dtick=_ticks(plot, "y"))
    if log_x:
        plot.update_xaxes(type="log", tickformat=_tick_format(plot, "x"), dtick=_ticks(plot, "x"))
    said = {"log scale": log, f"gaps: {NO_PLACE}": any(gaps), f"gaps: {NOT_FINITE}": _has_nan(plot)}
    note = ", ".join(filter(None, (note, *(words for words, true in said.items() if true))))
    return Figure(title=title, plot=plot, note=note, lines=lines)


def _values(line: Any, axis: str) -> np.ndarray:
    return np.asarray(() if line[axis] is None else line[axis], dtype=float)


def _has_positive(plot: go.Figure, axis: str) -> bool:
    lines: Any = plot.data  # plotly types it as a string
    return any((_values(line, axis) > 0).any() for line in lines)


def _has_nan(plot: go.Figure) -> bool:
    """Whether a value was not a number; None is a gap that the caller made, and speaks of if need be."""
    lines: Any = plot.data
    return any(isinstance(value, float) and np.isnan(value) for line in lines for value in line["y"])


def _leave_gaps(plot: go.Figure, axis: str) -> bool:
    """Take out what has no place on a logarithmic axis, where a line would fall to its bottom; true if there is any."""
    lines: Any = plot.data
    outside = [_values(line, axis) <= 0 for line in lines]
    for line, gaps in zip(lines, outside, strict=True):
        if gaps.any():
            line[axis] = [None if gap else value for gap, value in zip(gaps.tolist(), line[axis], strict=True)]
    return any(gaps.any() for gaps in outside)


def _tick_format(plot: go.Figure, axis: str) -> str:
    """One way of writing for all ticks: where all values are tiny, powers of ten."""
    lines: Any = plot.data
    return "~e" if all(not (_values(line, axis) >= TINY).any() for line in lines) else "~g"


def _ticks(plot: go.Figure, axis: str) -> str | int | None:
    """Ticks at 1, 2 and 5 where that is legible, on a longer axis at powers of ten; None leaves them to plotly."""
    lines: Any = plot.data  # plotly types it as a string
    values = np.concatenate([_values(line, axis) for line in lines])
    positive = values[values > 0]
    shortest, longest = DECADES_125
    if not len(positive):
        return None
    length = np.log10(positive.max() / positive.min())
    return "D2" if shortest < length < longest else 1 if length >= longest else None
