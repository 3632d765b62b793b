"""What every figure has in common: axes, and lines that differ in colour, pattern and marker.

The colours themselves belong to the page (page.css, page.js).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

__all__ = ["Figure", "Line", "figure"]

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
        log: a logarithmic vertical axis.
        log_x: a logarithmic horizontal axis.
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
    if log:
        plot.update_yaxes(type="log", tickformat="~g", dtick=_ticks(plot, "y"))
    if log_x:
        plot.update_xaxes(type="log", tickformat="~g", dtick=_ticks(plot, "x"))
    note = ", ".join(filter(None, (note, "log scale" if log else "")))
    return Figure(title=title, plot=plot, note=note, lines=lines)


def _ticks(plot: go.Figure, axis: str) -> str | int | None:
    """Ticks at 1, 2 and 5 where that is legible, on a longer axis at powers of ten; None leaves them to plotly."""
    lines: Any = plot.data  # plotly types it as a string
    values = np.concatenate([np.asarray(line[axis], dtype=float) for line in lines])
    positive = values[values > 0]
    shortest, longest = DECADES_125
    if not len(positive):
        return None
    length = np.log10(positive.max() / positive.min())
    return "D2" if shortest < length < longest else 1 if length >= longest else None
