"""How a comparison's figures draw many runs: the median as a line, all of them as a band, failed ones as crosses."""

import html
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from spikeless.experiments.analysis.outcome import Curve
from spikeless.report.style import NO_PLACE, NOT_FINITE, Figure, Line, figure
from spikeless.words import number

__all__ = ["Points", "Runs", "against", "over_steps", "scatter", "ticks_at"]

NAME_LENGTH = 28  # characters in a hover box
FEW_TICKS = 6  # values of an axis that are ticks themselves
ROW = 0.075  # height of a row of crosses, as a share of the height of the values
PADDING = 0.05  # around the values, likewise
ASIDE = 0.12  # around the places of a horizontal axis, as a share of its length
SPARSE = 30  # points up to which a line shows every one with a marker
LOG_RATIO = 20.0  # a curve that spans more than this is drawn on a logarithmic axis
BEGINNING = 0.2  # share of the steps in which a loss falls too steeply for the axis
TINY = 1e-3  # an axis of such values has its ticks as powers of ten
FEW_DECADES = 30.0  # up to so large a ratio there is room for its ticks at 1, 2 and 5

Points = Mapping[float, Sequence[float]]
"""Values of several runs at places of an axis; infinite for a run that failed."""
Runs = Sequence[tuple[Curve, bool]]
"""Curves of several runs, and whether the run failed."""


def against(
    title: str,
    arms: Mapping[Line, Points],
    *,
    x: str,
    y: str,
    hover: str,
    log: bool = False,
    log_x: bool = True,
    clip: float | None = None,
    note: str = "",
    marks: Callable[[Line, float], str | None] = lambda line, place: None,
) -> Figure | None:
    """A quantity against another, a line an arm; None if there is nothing to draw.

    Args:
        title: what it shows.
        arms: the values.
        x: title of the horizontal axis, with the unit.
        y: title of the vertical axis, with the unit.
        hover: heading of the hover box.
        log: a logarithmic vertical axis; values that are not above zero are left out, and said to be.
        log_x: a logarithmic horizontal axis, with ticks at the places themselves if they are few.
        clip: the highest value that is worth the space; lines may leave the figure above it.
        note: what is drawn, in half a line.
        marks: a marker instead of the arm's own, for a point.
    """
    known = {line: _known(points, log) for line, points in arms.items()}
    places = sorted({place for points in known.values() for place in points})
    finite = [value for points in known.values() for values in points.values() for value in values if value < math.inf]
    if not places or not finite:
        return None
    middles = {line: {place: float(np.median(points[place])) for place in points} for line, points in known.items()}
    low, high = min(finite), max(finite)
    high = min(high, clip) if clip is not None and clip > low else high
    rows = _rows(known)
    scale = _Scale(low, high, max(rows.values(), default=0), log)
    plot, marked = go.Figure(), False
    for line, points in known.items():
        own = [place for place in places if place in points]
        tops = [min(max(points[place]), scale.top) for place in own]
        _band(plot, line, own, [min(points[place]) for place in own], tops)
        _median(plot, line, points, middles[line], own, marks)
        marked |= _crosses(plot, line, points, rows, scale, places)
    plot.update_yaxes(range=scale.range)
    every = [value for points in arms.values() for values in points.values() for value in values]
    outside = not all(value > _floor(log) for value in every)
    left_out = f"left out: {NO_PLACE if log else NOT_FINITE}" if outside else ""
    note = ", ".join(filter(None, [note, "✕: failed runs" if marked else "", left_out]))
    log_x = log_x and places[0] > 0
    if log_x:
        ticks_at(plot, places)
    return figure(plot, title, x=x, y=y, hover=hover, log=log, log_x=log_x, note=note)


def over_steps(
    title: str, arms: Mapping[Line, Runs], *, y: str, digits: str, log: bool | None = None, skip: bool = False
) -> Figure | None:
    """A quantity over optimizer steps, a line an arm; None if there is nothing to draw.

    Args:
        title: what it shows.
        arms: the curves.
        y: title of the vertical axis, with the unit.
        digits: of the hover box, as a format.
        log: a logarithmic vertical axis; where the values span much, if None.
        skip: the vertical axis need not show the beginning.
    """
    plot, shown, crosses, left_out = go.Figure(), [], False, False
    for line, runs in arms.items():
        steps, values = _together(runs)
        alive = np.isfinite(values).any(axis=0)
        steps, values = steps[alive], values[:, alive]
        if not steps.size:
            continue
        finite = np.where(np.isfinite(values), values, np.nan)
        low, high = np.nanmin(finite, axis=0), np.nanmax(finite, axis=0)
        late = steps > BEGINNING * steps[-1] if skip and steps.size > SPARSE else steps >= 0
        shown += [*low[late].tolist(), *high[late].tolist()]
        left_out |= bool(skip and high.max() > max(shown))
        _band(plot, line, steps.tolist(), low.tolist(), high.tolist())
        middle = _median_alive(values)
        plot.add_scatter(
            x=steps.tolist(),
            y=[each if math.isfinite(each) else None for each in middle.tolist()],
            **_look(line, steps.size),
            hovertemplate=f"%{{y:{digits}}}",
        )
        crosses |= _ends(plot, line, runs)
    if not shown:
        return None
    low, high = min(shown), max(shown)
    log = high > LOG_RATIO * low > 0 if log is None else log and low > 0
    if skip and not log:
        margin = PADDING * (high - low)
        plot.update_yaxes(range=[low - margin, high + margin])
    plot.update_xaxes(rangemode="tozero", hoverformat=",d")
    notes = ["✕: a run failed" if crosses else "", "the beginning is above the axis" if left_out and not log else ""]
    note = ", ".join(filter(None, notes))
    return figure(plot, title, x="step [optimizer steps]", y=y, hover="step %{x:,d}", log=log, note=note)


def scatter(
    title: str, arms: Mapping[Line, Sequence[tuple[float, float, str]]], *, x: str, y: str, log: bool
) -> Figure | None:
    """One point a run, with what a hover box says of it; points without a place are left out, and said to be.

    Args:
        title: what it shows.
        arms: horizontal and vertical value of each run, and its name.
        x: title of the horizontal axis, with the unit; it is logarithmic.
        y: title of the vertical axis, with the unit.
        log: a logarithmic vertical axis.
    """
    plot, places, values, left_out = go.Figure(), [], [], 0
    for line, points in arms.items():
        kept = [
            each for each in points if math.isfinite(each[1]) and 0 < each[0] < math.inf and (each[1] > 0 or not log)
        ]
        left_out += len(points) - len(kept)
        places += [each[0] for each in kept]
        values += [each[1] for each in kept]
        if kept:
            plot.add_scatter(
                x=[each[0] for each in kept],
                y=[each[1] for each in kept],
                text=[html.escape(each[2], quote=False) for each in kept],
                **_look(line, 0) | {"mode": "markers", "opacity": 0.75},
                hovertemplate="%{x:.3g}, %{y:.4g}: %{text}",
            )
    if not plot.data:
        return None
    note = f"one point a run{f', {left_out} left out: not finite, or not above zero' if left_out else ''}"
    drawn = figure(plot, title, x=x, y=y, hover="", log=log, log_x=True, note=note)
    plot.update_layout(hovermode="closest")
    if max(places) < TINY:
        plot.update_xaxes(tickformat="~e", dtick="D2" if max(places) < FEW_DECADES * min(places) else 1)
    if max(values) < TINY:
        plot.update_yaxes(tickformat="~e")
    return drawn


def ticks_at(plot: go.Figure, places: Sequence[float], aside: float = ASIDE) -> None:
    """Room for what stands beside the outer places, and ticks at all of a few."""
    low, high = math.log10(places[0]), math.log10(places[-1])
    length = (high - low) or 1.0
    plot.update_xaxes(range=[low - ASIDE * length, high + aside * length])
    if len(places) <= FEW_TICKS:
        plot.update_xaxes(tickmode="array", tickvals=list(places), ticktext=[number(place) for place in places])


class _Scale:
    """The vertical axis: the values, and above them a row for each cross at one place."""

    def __init__(self, low: float, high: float, rows: int, log: bool) -> None:
        self._log = log
        bottom, top = (math.log10(low), math.log10(high)) if log else (low, high)
        self._height = (top - bottom) or abs(top) / 10 or 1.0
        self._top = top + PADDING * self._height
        end = self._top + (rows + 0.3 * (rows > 0)) * ROW * self._height
        self.top = self._value(self._top)
        self.range = [bottom - PADDING * self._height, end if high > low or rows else bottom + self._height]

    def row(self, index: int) -> float:
        """Where the crosses of a row are."""
        return self._value(self._top + (index + 0.5) * ROW * self._height)

    def _value(self, place: float) -> float:
        return 10**place if self._log else place


def _floor(log: bool) -> float:
    """What is not above it has no place on the axis."""
    return 0.0 if log else -math.inf


def _known(points: Points, log: bool) -> dict[float, list[float]]:
    """Without NaN, -inf, and on a logarithmic axis what is not above zero."""
    kept = {place: [value for value in values if value > _floor(log)] for place, values in points.items()}
    return {place: values for place, values in kept.items() if values}


def _rows(arms: Mapping[Line, Points]) -> dict[float, int]:
    """How many arms have a failed run at a place."""
    rows: dict[float, int] = {}
    for points in arms.values():
        for place, values in points.items():
            rows[place] = rows.get(place, 0) + (math.inf in values)
    return rows


def _median(
    plot: go.Figure,
    line: Line,
    points: Points,
    middles: Mapping[float, float],
    places: Sequence[float],
    marks: Callable[[Line, float], str | None],
) -> None:
    known = [middles[place] if math.isfinite(middles[place]) else None for place in places]
    look = _look(line, 0)
    look["marker"] |= {"symbol": [marks(line, place) or line.marker for place in places]}
    aside = [_aside(points[place]) for place in places]
    if any(value is not None for value in known):
        plot.add_scatter(x=list(places), y=known, customdata=aside, **look, hovertemplate="%{y:.4g}%{customdata}")


def _aside(values: Sequence[float]) -> str:
    """What a hover box says besides the median."""
    if len(values) == 1:
        return ""
    return f" ({number(min(values), 4)} to {number(max(values), 4)}, n {len(values)})"


def _crosses(
    plot: go.Figure, line: Line, points: Points, rows: dict[float, int], scale: _Scale, places: Sequence[float]
) -> bool:
    """A cross for each place with failed runs, and how many; `rows` counts the rows that are left."""
    failed = [place for place in places if math.inf in points.get(place, ())]
    counts = {place: sum(value == math.inf for value in points[place]) for place in failed}
    heights = []
    for place in failed:
        rows[place] -= 1
        heights.append(scale.row(rows[place]))
    if failed:
        plot.add_scatter(
            x=failed,
            y=heights,
            mode="markers+text",
            text=[f" {counts[place]}/{len(points[place])} " for place in failed],
            textposition=["middle left" if place > places[0] else "middle right" for place in failed],
            marker={"symbol": "x", "size": 8},
            hoverinfo="skip",
            meta={"arm": line.index, "color": line.color},
        )
    return bool(failed)


def _together(runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    """The curves at the steps of the longest one: where a run has failed infinite, where it has not come yet NaN."""
    curves = [(np.array(curve.steps), np.array(curve.values), failed) for curve, failed in runs if curve.steps]
    if not curves:
        return np.empty(0), np.empty((0, 0))
    steps = max((steps for steps, _, _ in curves), key=lambda each: (each[-1], each.size))
    rows = []
    for own, values, failed in curves:
        finite = np.isfinite(values)
        if finite.any():
            row = np.interp(steps, own[finite], values[finite])
            row[steps > own[finite][-1]] = np.inf if failed else np.nan
            rows.append(row)
    return steps, np.array(rows) if rows else np.full((1, steps.size), np.nan)


def _median_alive(values: np.ndarray) -> np.ndarray:
    """The median over runs, failed ones counting as infinite; NaN for none."""
    return np.array([np.median(column[~np.isnan(column)]) for column in values.T])


def _ends(plot: go.Figure, line: Line, runs: Runs) -> bool:
    """A cross where each run that failed was last finite."""
    last = []
    for curve, failed in runs:
        finite = [point for point in zip(curve.steps, curve.values, strict=True) if math.isfinite(point[1])]
        if failed and finite:
            last.append(finite[-1])
    if last:
        plot.add_scatter(
            x=[step for step, _ in last],
            y=[value for _, value in last],
            mode="markers",
            marker={"symbol": "x", "size": 8},
            hoverinfo="skip",
            meta={"arm": line.index, "color": line.color},
        )
    return bool(last)


def _band(plot: go.Figure, line: Line, x: Sequence[float], low: Sequence[float], high: Sequence[float]) -> None:
    """From the lowest to the highest run, where at least one is finite; its colour belongs to page.js."""
    pieces: list[list[tuple[float, float, float]]] = [[]]
    for point in zip(x, low, high, strict=True):
        if math.isfinite(point[1]):
            pieces[-1].append(point)
        elif pieces[-1]:
            pieces.append([])
    across, up = [], []
    for piece in pieces:
        if any(bottom < top for _, bottom, top in piece):
            forth, back = [place for place, _, _ in piece], [place for place, _, _ in piece[::-1]]
            across += [None] * bool(across) + forth + back
            up += [None] * bool(up) + [top for *_, top in piece] + [bottom for _, bottom, _ in piece[::-1]]
    if across:
        plot.add_scatter(
            x=across,
            y=up,
            mode="lines",
            fill="toself",
            line={"width": 0 if len(x) > 1 else 1},
            hoverinfo="skip",
            meta={"arm": line.index, "color": line.color},
        )


def _look(line: Line, size: int) -> dict:
    name = line.name
    short = name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH // 2]}…{name[-NAME_LENGTH // 2 + 1 :]}"
    return {
        "mode": "lines+markers",
        "name": html.escape(short, quote=False),
        "line": {"dash": line.dash, "width": 2},
        "marker": {"symbol": line.marker, "size": 7, "maxdisplayed": 8 if size > SPARSE else 0},
        "meta": {"arm": line.index, "color": line.color},
    }
