"""The figures of a comparison, one function a quantity; what was not measured is not drawn."""

import html
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from spikeless.experiments.analysis.comparison import Comparison
from spikeless.experiments.analysis.learning_rates import TOLERANCE
from spikeless.experiments.analysis.outcome import Outcome
from spikeless.experiments.analysis.stand_in import FINAL_LOSS, point
from spikeless.experiments.analysis.summary import ArmRow, arm_rows, baseline_of, median
from spikeless.experiments.presentation import wording
from spikeless.experiments.presentation.drawing import Points, Runs, against, over_steps, scatter, ticks_at
from spikeless.report.style import Figure, Line, figure
from spikeless.words import number

__all__ = ["lines", "sections"]

LR = "peak learning rate [dimensionless]"
LOSS = "final validation loss [nats/token]"
VARIANCE = "gradient_variance/exact/all"
TEVS = {"tev/mean": "raw TEV, μ", "tev/effective_mean": "effective TEV, μ", "tev/relative": "relative TEV"}
STEEP = 8.0
"""A loss so many times further above the best one than the median loss is, or than is stable, leaves the figure."""
NAME = 16  # characters of an arm's name in a line beside an axis

Shape = tuple[int, int]


def lines(comparison: Comparison) -> list[Line]:
    """The look of each arm."""
    return [Line(name=arm, index=index) for index, arm in enumerate(comparison.arms)]


def sections(comparison: Comparison) -> dict[str, list[Figure]]:
    """Every figure for which there is something to draw, by section title."""
    grid = _Grid(comparison)
    shapes = comparison.shapes
    drawn = {
        "Depth": over_shapes(grid, 0),
        "Width": over_shapes(grid, 1),
        "Learning rate": [each for shape in shapes for each in (final_loss(grid, shape), largest_stable(grid, shape))],
        "Loss curves": [each for shape in shapes for each in loss_curves(grid, shape)],
        "Stability against learning rate": [each for shape in shapes for each in stability(grid, shape)],
        "Token embedding variability": [tev(grid, shape, key) for shape in shapes for key in TEVS],
        "Hidden variance over depth": [hidden_variance(grid, shape, end) for shape in shapes for end in (-1, 0)],
        "TEV, gradient variance and loss": stand_ins(grid),
    }
    kept = {title: [each for each in figures if each is not None] for title, figures in drawn.items()}
    return {title: figures for title, figures in kept.items() if figures}


class _Grid:
    """A comparison as figures need it."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.baseline = baseline_of(comparison)
        self.lines = lines(comparison)
        self.rows = {(*row.shape, row.arm): row for row in arm_rows(comparison)}

    def ended(self, shape: Shape, arm: str) -> list[Outcome]:
        """An arm's runs that have ended."""
        depth, width = shape
        return [run for run in self.comparison.select(arm=arm, depth=depth, width=width) if run.ended]

    def by_lr(self, shape: Shape, read: Callable[[Outcome], float | None]) -> Mapping[Line, Points]:
        """A quantity of all ended runs, by arm and learning rate."""
        found: dict[Line, dict[float, list[float]]] = {}
        for line in self.lines:
            for run in self.ended(shape, line.name):
                value = read(run)
                if value is not None:
                    found.setdefault(line, {}).setdefault(run.lr, []).append(value)
        return found

    def at(self, shape: Shape, lr: Callable[[ArmRow], float | None]) -> Iterator[tuple[Line, list[Outcome]]]:
        """Each arm's ended runs at a learning rate of its row."""
        for line in self.lines:
            row = self.rows.get((*shape, line.name))
            rate = lr(row) if row else None
            yield line, [run for run in self.ended(shape, line.name) if run.lr == rate]

    def title(self, text: str, shape: Shape) -> str:
        """A figure's title, with the shape where there are several."""
        return text if len(self.comparison.shapes) == 1 else f"{text}, {wording.shape(*shape)}"


def final_loss(grid: _Grid, shape: Shape) -> Figure | None:
    """The final validation loss against the learning rate."""
    values = grid.by_lr(shape, lambda run: run.final_loss)
    medians = [median(each) or math.inf for points in values.values() for each in points.values()]
    finite = [each for each in medians if math.isfinite(each)]
    best = min(finite, default=0.0)
    return against(
        grid.title("Final validation loss", shape),
        values,
        x=LR,
        y=LOSS,
        hover="learning rate %{x:.3g}",
        clip=best + STEEP * max(float(np.median(finite)) - best, TOLERANCE) if finite else None,
        note="median, smallest to largest over seeds",
    )


def largest_stable(grid: _Grid, shape: Shape) -> Figure | None:
    """The largest stable learning rate of each arm, with an arrow where the grid ends."""
    rows = [(line, grid.rows.get((*shape, line.name))) for line in grid.lines]
    rows = [(line, row) for line, row in rows if row is not None and (row.loss is not None or row.failed)]
    lrs = sorted({run.lr for run in grid.comparison.select(depth=shape[0], width=shape[1])})
    if not any(row.largest_stable_lr for _, row in rows) or len(lrs) < 2:
        return None
    plot = go.Figure()
    for place, (line, row) in enumerate(rows):
        none = row.largest_stable_lr is None
        plot.add_scatter(
            x=[row.largest_stable_lr or lrs[0]],
            y=[place],
            mode="text" if none else "markers+text",
            text=["none" if none else f"  {wording.stable(row)}"],
            textposition="middle right",
            marker={"symbol": "triangle-right" if row.stable_censored else line.marker, "size": 11},
            hoverinfo="skip",
            meta={"arm": line.index, "color": line.color},
        )
    names = [_broken(line.name) for line, _ in rows]
    note = "▶: the grid's largest, so at least this" if any(row.stable_censored for _, row in rows) else ""
    title = grid.title("Largest stable learning rate", shape)
    drawn = figure(plot, title, x=LR, y="arm [name]", hover="", log_x=lrs[0] > 0, note=note)
    if lrs[0] > 0:
        ticks_at(plot, lrs, aside=0.4)
    plot.update_yaxes(range=[len(rows) - 0.5, -0.5], tickvals=list(range(len(rows))), ticktext=names)
    plot.update_layout(hovermode=False)
    return drawn


def loss_curves(grid: _Grid, shape: Shape) -> list[Figure | None]:
    """The training loss at each arm's best learning rate, at the baseline's, and at the grid's largest."""
    theirs = grid.rows.get((*shape, grid.baseline))
    rates = {"each arm's best learning rate": lambda row: row.best_lr}
    base = theirs.best_lr if theirs else None
    largest = max(run.lr for run in grid.comparison.select(depth=shape[0], width=shape[1]))
    chosen = {row.best_lr for key, row in grid.rows.items() if key[:2] == shape and row.best_lr is not None}
    if base is not None and chosen != {base}:
        rates[f"the {grid.baseline}'s best learning rate {number(base)}"] = lambda row: base
    if largest != base and chosen != {largest}:
        rates[f"the largest learning rate {number(largest)}"] = lambda row: largest
    return [
        over_steps(
            grid.title(f"Training loss at {name}", shape),
            {line: _curves(runs, "loss") for line, runs in grid.at(shape, rate)},
            y="training loss [nats/token]",
            digits=".4f",
            skip=True,
        )
        for name, rate in rates.items()
    ]


def stability(grid: _Grid, shape: Shape) -> list[Figure | None]:
    """Largest gradient norm, spike scores and largest update norm."""

    def score(key: str) -> Callable[[Outcome], float | None]:
        return lambda run: run.spikes[key].score if key in run.spikes else None

    quantities: dict[str, tuple[Callable[[Outcome], float | None], str, bool]] = {
        "Largest gradient norm": (lambda run: run.max_grad_norm, "gradient norm [dimensionless]", True),
        "Largest update norm": (lambda run: run.max_update_norm, "update norm [dimensionless]", True),
        "Spike score of the loss": (score("loss"), "spike score [share of the steps]", False),
        "Spike score of the gradient norm": (score("grad_norm"), "spike score [share of the steps]", False),
    }
    return [
        against(
            grid.title(title, shape),
            grid.by_lr(shape, read),
            x=LR,
            y=label,
            hover="learning rate %{x:.3g}",
            log=log,
            note="of the logged steps" if "update" in title else "",
        )
        for title, (read, label, log) in quantities.items()
    ]


def tev(grid: _Grid, shape: Shape, key: str) -> Figure | None:
    """A reading of TEV over the steps, at each arm's best learning rate."""
    name = TEVS[key]
    return over_steps(
        grid.title(f"{name[0].upper()}{name[1:]}", shape),
        {line: _curves(runs, key) for line, runs in grid.at(shape, lambda row: row.best_lr)},
        y=f"{name} [dimensionless]",
        digits=".4g",
    )


def hidden_variance(grid: _Grid, shape: Shape, end: int) -> Figure | None:
    """The variance of the residual stream after each block, at the last reading (-1) or at the first one (0)."""
    found: dict[Line, dict[float, list[float]]] = {}
    for line, runs in grid.at(shape, lambda row: row.best_lr):
        depths: dict[float, list[float]] = {}
        for run in runs:
            for key, curve in run.curves.items():
                place = key.removeprefix("hidden_variance/")
                if place.isdecimal() and place != key and curve.values:
                    depths.setdefault(int(place), []).append(curve.values[end])
        found[line] = depths
    return against(
        grid.title("At the last reading" if end else "Before the first step", shape),
        found,
        x="blocks passed [blocks]",
        y="hidden variance [dimensionless]",
        hover="after %{x:d} blocks",
        log=True,
        log_x=False,
    )


def stand_ins(grid: _Grid) -> list[Figure | None]:
    """TEV against gradient variance and against the final loss, one point a run."""

    def points(x: str, y: str) -> dict[Line, list[tuple[float, float, str]]]:
        runs = {line: [run for run in grid.comparison.select(arm=line.name) if run.ended] for line in grid.lines}
        return {line: [(point(run, x), point(run, y), run.run) for run in own] for line, own in runs.items()}

    variance = "gradient variance [dimensionless]"
    return [
        *(
            scatter(
                f"Gradient variance against {name.removesuffix(', μ')}",
                points(key, VARIANCE),
                x=f"{name}, mean over a run [dimensionless]",
                y=variance,
                log=True,
            )
            for key, name in list(TEVS.items())[:2]
        ),
        scatter(
            "Final loss against effective TEV",
            points("tev/effective_mean", FINAL_LOSS),
            x="effective TEV, μ, mean over a run [dimensionless]",
            y=LOSS,
            log=False,
        ),
        scatter(
            "Final loss against gradient variance",
            points(VARIANCE, FINAL_LOSS),
            x=variance,
            y=LOSS,
            log=False,
        ),
    ]


def over_shapes(grid: _Grid, axis: int) -> list[Figure | None]:
    """What changes with the depth (axis 0) or the width (axis 1), the other one being fixed."""
    name, unit, other = (("depth", "layers", "width"), ("width", "dimensions", "layers"))[axis]
    fixed: dict[int, list[Shape]] = {}
    for shape in grid.comparison.shapes:
        fixed.setdefault(shape[1 - axis], []).append(shape)
    drawn = []
    for value, shapes in fixed.items():
        if len(shapes) > 1:
            aside = f", {other} {value}" if len(fixed) > 1 else ""
            drawn += _over(grid, axis, shapes, f"{name} [{unit}]", name, aside)
    return drawn


def _over(grid: _Grid, axis: int, shapes: Sequence[Shape], x: str, name: str, aside: str) -> list[Figure | None]:
    def by_shape(read: Callable[[Line, Shape], Sequence[float]]) -> Mapping[Line, Points]:
        found = {line: {shape[axis]: read(line, shape) for shape in shapes} for line in grid.lines}
        return {line: {place: values for place, values in points.items() if values} for line, points in found.items()}

    def best(read: Callable[[Outcome], float | None]) -> Callable[[Line, Shape], list[float]]:
        def of(line: Line, shape: Shape) -> list[float]:
            row = grid.rows.get((*shape, line.name))
            runs = [run for run in grid.ended(shape, line.name) if row is not None and run.lr == row.best_lr]
            return [value for value in map(read, runs) if value is not None]

        return of

    def last(key: str) -> Callable[[Outcome], float | None]:
        return lambda run: run.curves[key].values[-1] if key in run.curves and run.curves[key].values else None

    def differences(line: Line, shape: Shape) -> Sequence[float]:
        row = grid.rows.get((*shape, line.name))
        return row.own_lr.differences if row is not None and row.own_lr is not None else ()

    def stable(line: Line, shape: Shape) -> Sequence[float]:
        row = grid.rows.get((*shape, line.name))
        return () if row is None or row.largest_stable_lr is None else (row.largest_stable_lr,)

    def censored(line: Line, place: float) -> str | None:
        shape = next(shape for shape in shapes if shape[axis] == place)
        row = grid.rows.get((*shape, line.name))
        return "triangle-up" if row is not None and row.stable_censored else None

    hover = f"{name} %{{x:d}}"
    difference = f"difference to {grid.baseline} [nats/token]"
    figures = (
        (f"Final validation loss{aside}", by_shape(best(lambda run: run.final_loss)), LOSS, False),
        (f"Difference to {grid.baseline}{aside}", by_shape(differences), difference, False),
        (f"Raw TEV, μ, at the end{aside}", by_shape(best(last("tev/mean"))), "raw TEV, μ [dimensionless]", True),
        (f"Raw TEV, σ, at the end{aside}", by_shape(best(last("tev/std"))), "raw TEV, σ [dimensionless]", True),
    )
    note = "at each arm's best learning rate"
    drawn = [against(title, values, x=x, y=y, hover=hover, log=log, note=note) for title, values, y, log in figures]
    rates = by_shape(stable)
    above = "▲: the grid's largest, so at least this"
    title = f"Largest stable learning rate{aside}"
    drawn.append(against(title, rates, x=x, y=LR, hover=hover, log=True, note=above, marks=censored))
    return drawn


def _curves(runs: Sequence[Outcome], key: str) -> Runs:
    return [(run.curves[key], run.failed) for run in runs if key in run.curves]


def _broken(name: str) -> str:
    """An arm's name in lines that fit beside an axis, broken at its joints."""
    parts = [""]
    for piece in name.replace("+", "\0+").replace("(", "\0(").split("\0"):
        if parts[-1] and len(parts[-1]) + len(piece) > NAME:
            parts.append("")
        parts[-1] += piece
    return "<br>".join(
        html.escape(part if len(part) <= NAME else f"{part[: NAME - 1]}…", quote=False) for part in parts
    )
