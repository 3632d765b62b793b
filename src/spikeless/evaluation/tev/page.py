"""The page of `spikeless tev --plot`: the distribution over the vocabulary, and trajectories of runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from spikeless.evaluation.tev.measure import EmbeddingVariability
from spikeless.evaluation.tev.summary import COLUMNS, name_of, remarks, rows
from spikeless.report.page import write_page
from spikeless.report.style import Figure, Line, figure

__all__ = ["write_tev_page"]

TEMPLATE = Path(__file__).with_name("tev.html.jinja")
BINS = 160
WIDE = 5.0  # TEV that spans more than this is drawn on a logarithmic axis


@dataclass(frozen=True, kw_only=True)
class _Drawn(Line):
    """A checkpoint that has a line in the histogram."""

    reading: EmbeddingVariability

    @property
    def values(self) -> np.ndarray:
        """TEV of its rows, as far as they are finite and not zero [n]."""
        stds = self.reading.row_stds.numpy()
        return stds[np.isfinite(stds) & (stds > 0)]


def write_tev_page(readings: Sequence[EmbeddingVariability], path: Path) -> None:
    """Write one self-contained HTML file about checkpoints.

    Of a run's checkpoints the first and the last are in the histogram; all of them are in its trajectory.

    Raises:
        UserError: the file cannot be written.
    """
    runs = [list(group) for _, group in groupby(readings, key=lambda each: (each.label, each.step is None))]
    ends = [each for run in runs for each in (run if run[0].step is None or len(run) < 3 else (run[0], run[-1]))]
    shown = [_Drawn(name=name_of(each), index=index, reading=each) for index, each in enumerate(ends)]
    sections = {"Over the vocabulary": [histogram(shown)] if any(len(each.values) for each in shown) else []}
    moving = [run for run in runs if run[0].step is not None and len(run) > 1]
    style = {id(each.reading): each for each in shown}
    trajectories = [(style[id(run[-1])], run) for run in moving]
    if trajectories:
        sections["Over the run"] = [
            trajectory(trajectories, "mean", "raw"),
            trajectory(trajectories, "effective_mean", "effective"),
        ]
    write_page(
        path,
        TEMPLATE,
        title="Token embedding variability",
        sections={title: figures for title, figures in sections.items() if figures},
        lines=shown,
        columns=COLUMNS,
        rows=rows(readings),
        remarks=remarks(readings),
    )


def histogram(shown: Sequence[_Drawn]) -> Figure:
    """Share of the rows in each of many equal bins, the same for all."""
    every = [each.values for each in shown if len(each.values)]
    low, high = min(float(each.min()) for each in every), max(float(each.max()) for each in every)
    log = high > WIDE * low > 0
    if low == high:
        low, high = low * 0.99, high * 1.01
    edges = np.geomspace(low, high, BINS + 1) if log else np.linspace(low, high, BINS + 1)
    edges[0], edges[-1] = low, high  # rounding must not leave the extremes out
    middles = np.sqrt(edges[:-1] * edges[1:]) if log else (edges[:-1] + edges[1:]) / 2
    plot = go.Figure()
    for each in shown:
        counts = np.histogram(each.values, edges)[0]
        plot.add_scatter(
            x=middles,
            y=100 * counts / max(1, each.reading.rows),
            mode="lines",
            name=each.name[-40:],
            line={"dash": each.dash, "width": 2, "shape": "hvh"},
            hovertemplate="%{y:.3g} %",
            meta={"arm": each.index, "color": each.color},
        )
    return figure(
        plot,
        "TEV of every row, raw",
        x="raw TEV of a row [dimensionless]",
        y="share of the rows in a bin [%]",
        hover="TEV %{x:.4g}",
        log_x=log,
        note=f"{BINS} bins{', rows of one value left out' if any(e.reading.constant_rows for e in shown) else ''}",
    )


def trajectory(runs: Sequence[tuple[Line, Sequence[EmbeddingVariability]]], key: str, what: str) -> Figure:
    """The mean over the rows, checkpoint by checkpoint; a run's line looks like its last checkpoint's."""
    plot = go.Figure()
    for line, readings in runs:
        plot.add_scatter(
            x=[each.step for each in readings],
            y=[getattr(each, key) for each in readings],
            mode="lines+markers",
            name=readings[0].label[-40:],
            line={"dash": line.dash, "width": 2},
            marker={"symbol": line.marker, "size": 7},
            hovertemplate="%{y:.4g}",
            meta={"arm": line.index, "color": line.color},
        )
    plot.update_xaxes(hoverformat=",d")
    return figure(
        plot,
        f"TEV, {what}",
        x="step [optimizer steps]",
        y=f"{what} TEV, μ [dimensionless]",
        hover="step %{x:,d}",
    )
