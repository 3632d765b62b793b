"""The figures of an audit's page, one function a quantity; what was not measured is not drawn."""

import math
from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from spikeless.preflight.measurements import (
    AttentionReading,
    GrowthFit,
    Kind,
    LayerReading,
    LearningRateReading,
    Measurements,
    SubLayerReading,
    TevReading,
    Theory,
)
from spikeless.report.style import Figure, Line, figure
from spikeless.words import number

__all__ = ["KINDS", "sections"]

KINDS: dict[Kind, str] = {"attention": "attention", "ffn": "feed-forward", "parallel": "parallel", "unknown": "unknown"}
WIDE = 5.0  # what spans more than this is drawn on a logarithmic axis
SPARSE = 30  # points up to which a line shows every one with a marker
FEW = 12  # layers up to which each has its tick
STEEPEST = 100.0  # a slope of which nothing is said
GAPS = 6  # layers that a note lists

Values = Sequence[float | None]
Points = tuple[Sequence[float], Values]


def sections(measured: Measurements) -> dict[str, list[Figure]]:
    """Every figure for which there is something to draw, by section title."""
    layers, theory = measured.layers, measured.theory
    jacobians = [jacobian(layers, kind) for kind in KINDS]
    if not any(jacobians) and theory is not None:
        jacobians = [predicted_jacobian(theory)]
    drawn = {
        "Jacobians of the sub-layers": jacobians,
        "Shortcut": [shortcut(layers, theory, kind) for kind in KINDS],
        "Gradient and residual stream": [gradient(layers, measured.gradient_growth), residual(measured)],
        "Attention": [
            attention(layers, "logit_max", "Attention logits, maximum", "largest |logit| [dimensionless]"),
            attention(layers, "entropy", "Attention entropy", "entropy [nats]"),
            relative_entropy(layers),
        ],
        "Token embedding variability": [histogram(measured.tev)],
        "Learning rate": [range_test(measured.learning_rate)],
    }
    kept = {title: [each for each in figures if each is not None] for title, figures in drawn.items()}
    return {title: figures for title, figures in kept.items() if figures}


def jacobian(layers: Sequence[LayerReading], kind: Kind) -> Figure | None:
    """Estimate, bound and measured spectral norm of the sub-layers of a kind."""
    read = {
        key: _of_kind(layers, kind, lambda each, key=key: getattr(each, key))
        for key in ("estimate", "bound", "measured")
    }
    return _over_depth(f"Jacobian norm, {KINDS[kind]}", "spectral norm [dimensionless]", read)


def predicted_jacobian(theory: Theory) -> Figure | None:
    """1 + gain by the theory, for an audit without activations."""
    read = {KINDS[kind]: _predicted(theory, kind, lambda each: 1 + each.gain) for kind in KINDS}
    return _over_depth("Jacobian norm, predicted", "1 + gain [dimensionless]", read)


def shortcut(layers: Sequence[LayerReading], theory: Theory | None, kind: Kind) -> Figure | None:
    """Std of what enters the norms of a kind of sub-layer, and what the theory says of it."""
    read = {
        "minimum": _of_kind(layers, kind, lambda each: each.shortcut and each.shortcut.min),
        "median": _of_kind(layers, kind, lambda each: each.shortcut and each.shortcut.median),
    }
    if theory is not None:
        read["predicted"] = _predicted(theory, kind, lambda each: each.shortcut)
    return _over_depth(f"Shortcut σ_x, {KINDS[kind]}", "std over D, per token [dimensionless]", read)


def residual(measured: Measurements) -> Figure | None:
    """Variance of the residual stream at the blocks' inputs."""
    read = {"residual stream": _of_layers(measured.layers, _variance)}
    note = _growth(measured.residual_growth)
    return _over_depth("Residual stream, variance", "variance over D, mean [dimensionless]", read, note)


def _variance(layer: LayerReading) -> float | None:
    return None if layer.residual_std is None else layer.residual_std**2


def gradient(layers: Sequence[LayerReading], growth: GrowthFit | None) -> Figure | None:
    """Norm of the loss's gradient at the blocks' inputs."""
    read = {"gradient": _of_layers(layers, lambda each: each.gradient_norm)}
    return _over_depth("Gradient norm, ‖∂L/∂x‖", "Frobenius norm [dimensionless]", read, _growth(growth))


def attention(layers: Sequence[LayerReading], key: str, title: str, label: str) -> Figure | None:
    """One quantity of attention."""
    return _over_depth(title, label, {key: _of_attention(layers, key)})


def relative_entropy(layers: Sequence[LayerReading]) -> Figure | None:
    """Entropy against that of uniform attention."""
    read = {
        "mean over heads": _of_attention(layers, "relative_entropy"),
        "lowest head": _of_attention(layers, "lowest_head"),
    }
    return _over_depth("Attention entropy, relative", "relative entropy [dimensionless]", read, log=False)


def histogram(tev: TevReading | None) -> Figure | None:
    """Share of the embedding's rows in each bin of TEV."""
    if tev is None or not tev.histogram or not all(map(math.isfinite, (*tev.histogram, *tev.edges))):
        return None
    edges = list(tev.edges)
    log = edges[0] > 0 and edges[-1] > WIDE * edges[0]
    heights = [0.0, *(100 * each for each in tev.histogram), 0.0]
    plot = go.Figure()
    _line(plot, Line(name="rows", index=0), ([edges[0], *edges], heights), bare=True)
    plot.update_traces(line_shape="hv", hovertemplate="%{y:.3g} %")
    which = "raw" if tev.effective_mean is None else "effective"
    return figure(
        plot,
        f"TEV of every row, {which}",
        x=f"{which} TEV of a row [dimensionless]",
        y="share of the rows in a bin [%]",
        hover="bin from TEV %{x:.4g}",
        log_x=log,
        note=f"{len(tev.histogram)} bins",
    )


def range_test(reading: LearningRateReading | None) -> Figure | None:
    """The loss of the learning-rate range test, with the critical and the planned learning rate."""
    if reading is None or not reading.range_lrs:
        return None
    finite = [each for each in reading.range_losses if math.isfinite(each)]
    if not finite:
        return None
    plot = go.Figure()
    lines = [Line(name="loss", index=0)]
    _line(plot, lines[0], (reading.range_lrs, reading.range_losses))
    ends = (min(finite), max(finite))
    marks = (
        ("critical, first update", reading.critical),
        ("planned", reading.lr),
        ("averaged loss rises", reading.range_rise),
        ("blew up", reading.range_limit),
    )
    for index, (name, lr) in enumerate(marks, start=1):
        if lr is not None and math.isfinite(lr) and lr > 0:
            lines.append(Line(name=f"{name} ({number(lr)})", index=index))
            _line(plot, lines[-1], ((lr, lr), ends), bare=True)
            plot.data[-1].update(hoverinfo="skip", hovertemplate=None)
    return figure(
        plot,
        "Learning-rate range test",
        x="learning rate [dimensionless]",
        y="training loss [nats/token]",
        hover="learning rate %{x:.3g}",
        log_x=True,
        lines=tuple(lines),
    )


def _of_kind(layers: Sequence[LayerReading], kind: Kind, read: Callable[[SubLayerReading], float | None]) -> Points:
    """A block may have several sub-layers of a kind: each is a point."""
    found = [(layer.index, read(each)) for layer in layers for each in layer.sub_layers if each.kind == kind]
    return [index for index, _ in found], [value for _, value in found]


def _predicted(theory: Theory, kind: Kind, read: Callable[..., float]) -> Points:
    found = [each for each in theory.sub_layers if each.kind == kind]
    return [each.layer for each in found], [read(each) for each in found]


def _of_layers(layers: Sequence[LayerReading], read: Callable[[LayerReading], float | None]) -> Points:
    return [each.index for each in layers], [read(each) for each in layers]


def _of_attention(layers: Sequence[LayerReading], key: str) -> Points:
    def read(layer: LayerReading) -> float | None:
        reading: AttentionReading | None = layer.attention
        return None if reading is None else getattr(reading, key)

    return _of_layers(layers, read)


def _over_depth(title: str, label: str, read: dict[str, Points], note: str = "", log: bool = True) -> Figure | None:
    """A figure over the layers, a line for each quantity with a finite value; None if there is none.

    Args:
        title: what it shows.
        label: title of the vertical axis.
        read: layers and values of each quantity; its place decides its line's look.
        note: what is said beside the title.
        log: a logarithmic axis where the values span much.
    """
    plot, lines = go.Figure(), []
    finite: list[float] = []
    broken: set[int] = set()
    for index, (name, (layers, values)) in enumerate(read.items()):
        broken |= {
            int(at) for at, each in zip(layers, values, strict=True) if each is not None and not math.isfinite(each)
        }
        known = [each for each in values if each is not None and math.isfinite(each)]
        if known:
            finite += known
            lines.append(Line(name=name, index=index))
            _line(plot, lines[-1], (layers, values))
    if not lines:
        return None
    plot.update_xaxes(hoverformat="d", tickformat="d", dtick=1 if _longest(read) <= FEW else None)
    many = ", …" if len(broken) > GAPS else ""
    gaps = f"not finite in layer {', '.join(map(str, sorted(broken)[:GAPS]))}{many}" if broken else ""
    return figure(
        plot,
        title,
        x="layer [from 0]",
        y=label,
        hover="layer %{x}",
        log=log and min(finite) > 0 and max(finite) > WIDE * min(finite),
        note=", ".join(filter(None, (lines[0].name if len(lines) == 1 < len(read) else "", note, gaps))),
        lines=tuple(lines),
    )


def _line(plot: go.Figure, line: Line, points: Points, bare: bool = False) -> None:
    places, values = points
    plot.add_scatter(
        x=list(places),
        y=[each if each is not None and math.isfinite(each) else None for each in values],
        mode="lines" if bare else "lines+markers",
        name=line.name,
        line={"dash": line.dash, "width": 2},
        marker={"symbol": line.marker, "size": 7, "maxdisplayed": 0 if len(places) <= SPARSE else SPARSE // 2},
        hovertemplate="%{y:.3g}",
        meta={"arm": line.index, "color": line.color},
    )


def _longest(read: dict[str, Points]) -> int:
    return max((len(set(layers)) for layers, _ in read.values()), default=0)


def _growth(fit: GrowthFit | None) -> str:
    if fit is None or not math.isfinite(fit.log_slope) or abs(fit.log_slope) > STEEPEST:
        return ""
    if fit.better == "flat":
        return "flat"
    if fit.better == "linear":
        return f"linear, {fit.linear_slope:+.3g} a layer"
    return f"exponential, ×{math.exp(fit.log_slope):.3g} a layer"
