"""The curves of a report, one function a figure; colours belong to the page (page.css, page.js)."""

import html
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from spikeless.report.arms import Arm
from spikeless.report.record import RunRecord, Series
from spikeless.report.style import Figure, figure

__all__ = ["figures"]

SPARSE = 30  # points up to which a line shows every one with a marker
NAME_LENGTH = 28  # characters in a hover box
MARKERS_SHOWN = 8  # on a denser line
MAX_POINTS = 4000  # a line; beyond it the extremes of each bucket are kept
LOG_RATIO = 20.0  # a loss that spans more than this is drawn on a logarithmic axis


def figures(arms: Sequence[Arm]) -> dict[str, list[Figure]]:
    """Every figure for which something was logged, by section title."""
    sections = {
        "Loss": [training_loss(arms), validation_loss(arms), validation_bits_per_byte(arms)],
        "Optimisation": [grad_norm(arms), learning_rate(arms)],
        "Token embedding variability": [tev_raw(arms), tev_effective(arms), tev_relative(arms)],
        "Gradient variance": gradient_variance(arms),
    }
    drawn = {title: [figure for figure in each if figure is not None] for title, each in sections.items()}
    return {title: each for title, each in drawn.items() if each}


def training_loss(arms: Sequence[Arm]) -> Figure | None:
    """The loss of every logged step, faint, with its centred moving mean."""
    plot = go.Figure()
    lowest, highest = np.inf, 0.0
    for arm, record, (steps, loss) in _runs(arms, "loss"):
        finite = loss[np.isfinite(loss)]
        lowest, highest = min([lowest, *finite]), max([highest, *finite])
        _line(plot, arm, record, (steps, loss), faint=True)
        _line(plot, arm, record, (steps, smooth(loss)), hover="%{y:.4f}")
        _last_finite(plot, arm, (steps, loss))
    log = highest > LOG_RATIO * lowest > 0
    return _figure(plot, "Training loss", "training loss [nats/token]", log=log, note="faint: every step")


def validation_loss(arms: Sequence[Arm]) -> Figure | None:
    """The loss on held-out text."""
    return _simple(arms, "val_loss", "Validation loss", "validation loss [nats/token]", ".4f")


def validation_bits_per_byte(arms: Sequence[Arm]) -> Figure | None:
    """The same in a unit in which tokenizers compare, where they differ; else it has the same shape."""
    if len({(record.config.get("data") or {}).get("tokenizer") for arm in arms for record in arm.records}) < 2:
        return None
    return _simple(arms, "val_bits_per_byte", "Validation, bits per byte", "validation loss [bits/byte]", ".4f")


def grad_norm(arms: Sequence[Arm]) -> Figure | None:
    """The norm of the whole gradient."""
    plot = go.Figure()
    for arm, record, series in _runs(arms, "grad_norm"):
        _line(plot, arm, record, series, hover="%{y:.3g}")
        _last_finite(plot, arm, series)
    return _figure(plot, "Gradient norm", "gradient norm [dimensionless]", log=True, note="before clipping")


def learning_rate(arms: Sequence[Arm]) -> Figure | None:
    """The schedule as it was applied."""
    return _simple(arms, "lr", "Learning rate", "learning rate [dimensionless]", ".3g")


def tev_raw(arms: Sequence[Arm]) -> Figure | None:
    """Mean TEV of the embedding's rows."""
    return _simple(arms, "tev/mean", "TEV, raw", "raw TEV, μ [dimensionless]", ".4g", spread="tev/std")


def tev_effective(arms: Sequence[Arm]) -> Figure | None:
    """Mean TEV of the vectors that enter the residual stream."""
    label = "effective TEV, μ [dimensionless]"
    return _simple(arms, "tev/effective_mean", "TEV, effective", label, ".4g", spread="tev/effective_std")


def tev_relative(arms: Sequence[Arm]) -> Figure | None:
    """Raw TEV against its own start."""
    return _simple(arms, "tev/relative", "TEV, relative", "relative TEV [dimensionless]", ".4g")


def gradient_variance(arms: Sequence[Arm]) -> list[Figure | None]:
    """One figure a parameter role."""
    keys = {key for arm in arms for record in arm.records for key in record.quantities()}
    return [
        _simple(arms, key, key.split("/", 2)[-1], "gradient variance [dimensionless]", ".3g", log=True)
        for key in sorted(keys)
        if key.startswith("gradient_variance/")
    ]


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving mean over a twentieth of the curve (3 to 101 points); what is not finite stays so."""
    width = min(101, max(3, values.size // 20)) | 1
    finite = np.isfinite(values)
    kernel = np.ones(width)
    total = np.convolve(np.where(finite, values, 0.0), kernel, mode="full")[width // 2 :][: values.size]
    count = np.convolve(finite, kernel, mode="full")[width // 2 :][: values.size]
    return np.where(finite, total / np.maximum(count, 1), np.nan)


def thin(series: Series) -> Series:
    """A long curve with only the extremes and the first gap of each bucket, so that spikes survive."""
    steps, values = series
    if values.size <= MAX_POINTS:
        return series
    kept = {0, values.size - 1}
    for bucket in np.array_split(np.arange(values.size), MAX_POINTS // 3):
        finite = bucket[np.isfinite(values[bucket])]
        gaps = bucket[~np.isfinite(values[bucket])]
        if finite.size:
            kept |= {int(finite[values[finite].argmin()]), int(finite[values[finite].argmax()])}
        kept |= set(gaps[:1].tolist())
    order = sorted(kept)
    return steps[order], values[order]


def _runs(arms: Sequence[Arm], key: str) -> list[tuple[Arm, RunRecord, Series]]:
    every = [(arm, record, record.series(key)) for arm in arms for record in arm.records]
    return [(arm, record, series) for arm, record, series in every if series[0].size]


def _simple(
    arms: Sequence[Arm],
    key: str,
    title: str,
    label: str,
    digits: str,
    *,
    log: bool = False,
    spread: str | None = None,
) -> Figure | None:
    """A figure of one quantity, one line a run; `spread` is the key of a std to show on hover."""
    plot = go.Figure()
    for arm, record, series in _runs(arms, key):
        sigmas = dict(zip(*map(np.ndarray.tolist, record.series(spread)), strict=True)) if spread else {}
        aside = [f", σ {sigmas[step]:{digits}}" if step in sigmas else "" for step in series[0].tolist()]
        _line(plot, arm, record, series, hover=f"%{{y:{digits}}}%{{customdata}}", aside=aside)
    return _figure(plot, title, label, log=log, note="σ over the vocabulary: hover" if spread else "")


def _line(
    plot: go.Figure,
    arm: Arm,
    record: RunRecord,
    series: Series,
    *,
    hover: str = "",
    aside: Sequence[str] = (),
    faint: bool = False,
) -> None:
    """One run's curve in its arm's style; `aside` is a hover text for every point."""
    steps, values = thin(series)
    kept = dict(zip(series[0].tolist(), aside, strict=True)) if aside else {}
    shown = MARKERS_SHOWN if values.size > SPARSE else 0  # 0: all
    plot.add_scatter(
        x=steps,
        y=np.where(np.isfinite(values), values, np.nan),
        name=html.escape(_short(arm.run_name(record)), quote=False),
        customdata=[kept[step] for step in steps.tolist()] if kept else None,
        mode="lines" if faint else "lines+markers",
        line={"dash": "solid" if faint else arm.dash, "width": 1 if faint else 2},
        marker={"symbol": arm.marker, "size": 7, "maxdisplayed": shown},
        opacity=0.3 if faint else 1,
        hovertemplate=hover,
        hoverinfo="skip" if faint else None,
        meta={"arm": arm.index, "color": arm.color},
    )


def _short(name: str) -> str:
    """A name for the hover box, which does not wrap: its start and its end."""
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH // 2]}…{name[-NAME_LENGTH // 2 + 1 :]}"


def _last_finite(plot: go.Figure, arm: Arm, series: Series) -> None:
    """A cross where a curve that ends in NaN or infinity was last finite."""
    steps, values = series
    finite = np.flatnonzero(np.isfinite(values))
    if not finite.size or finite[-1] == values.size - 1:
        return
    last = finite[-1]
    side = "left" if steps[last] > steps[-1] / 2 else "right"
    plot.add_scatter(
        x=[steps[last]],
        y=[values[last]],
        mode="markers+text",
        text=[f" diverged at {steps[last + 1]:,} "],
        textposition=f"middle {side}",
        marker={"symbol": "x", "size": 11},
        hoverinfo="skip",
        meta={"arm": arm.index, "color": arm.color},
    )


def _figure(plot: go.Figure, title: str, label: str, *, log: bool = False, note: str = "") -> Figure | None:
    """A figure over the steps, or None if nothing was drawn."""
    if not plot.data:
        return None
    plot.update_xaxes(rangemode="tozero", hoverformat=",d")
    step = "step [optimizer steps]"
    return figure(plot, title, x=step, y=label, hover="step %{x:,d}", log=log, note=note)
