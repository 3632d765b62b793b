"""Condition 2, a large shortcut: what the first layer does to the gradient on its way to the embedding."""

import math

from spikeless.preflight.findings import Finding
from spikeless.preflight.measurements import LayerReading, Measurements, SubLayerReading

__all__ = ["shortcut"]

LARGE = 3.0
ABSURD = 1e4
SMALL = 0.1
STABLE = "0.40 to 0.82 in the papers' shapes with a large shortcut, 26 to 46 in those that spike"


def shortcut(measured: Measurements) -> list[Finding]:
    """Judges the term beside 1 in (15) and (20): how much larger than the shortcut a sub-layer's Jacobian is.

    The theory value is judged for initial weights. For the papers' three shapes it is 26 to 46 with Vanilla, whose runs
    spike or need a smaller learning rate, and 0.40 to 0.82 with Scaled Embed and Embed LN, whose runs do not; 3 lies
    between, a factor of 4 from the one and 9 from the other. Many models train well above it at their learning rates
    (GPT-2 124M: 28, Llama 7B: 650), so it is a warning: it takes headroom. Nothing that trains comes near 10 000.
    A measured Jacobian is judged by the same term, with 1 for the shortcut itself. Deeper layers are named only where
    their shortcut is below 0.1, the geometric middle of 0.63 (Scaled Embed) and 0.02 (Vanilla).
    A block whose output is not its input plus something, where most others' are, is named whatever its numbers.

    Reference: Takase et al., arXiv 2312.16903, formulas (15), (20); the values are derived, the thresholds ours.
    """
    judged = [
        each
        for each in (_theory(measured), _first_layer(measured), _deeper(measured), _missing(measured))
        if each is not None
    ]
    problems = [each for each in judged if each.severity != "pass"]
    return problems or judged[:1]


def _theory(measured: Measurements) -> Finding | None:
    gain = measured.theory.first_layer_ffn_gain if measured.theory else None
    if measured.theory is None or gain is None or measured.model.state != "initial":
        return None
    std = measured.theory.embedding_std
    numbers = f"sigma_1 sigma_2 C_ffn / sigma_x = {gain:.3g} at the first layer; embedding vectors have std {std:.3g}"
    if gain < LARGE:
        return _passed("layer 0, ffn", numbers, gain)
    return Finding(
        check="shortcut",
        code="first-layer-gain",
        severity="warn" if gain <= ABSURD else "fail",
        where="layer 0, ffn",
        message=numbers,
        value=gain,
        threshold=LARGE if gain <= ABSURD else ABSURD,
        why=STABLE
        if gain <= ABSURD
        else "a Llama 7B with std 0.02 everywhere has 650 and trains; nothing known comes near this",
        consequence="The first layers multiply the gradient by up to this, which lowers the largest stable rate.",
        advice="Make the std of the vectors that enter the first block about one, or use a smaller learning rate.",
    )


def _first_layer(measured: Measurements) -> Finding | None:
    """The largest measured Jacobian of the first layer."""
    found = [each for each in measured.layers[:1] for each in each.sub_layers if each.measured is not None]
    if not found:
        return None
    worst = max(found, key=lambda each: _order(each.measured))
    norm, where = worst.measured or 0.0, f"layer {measured.layers[0].index}, {worst.kind}"
    numbers = f"the measured Jacobian has norm {norm:.3g}{_entering(worst)}"
    if norm < 1 + LARGE:
        return _passed(where, numbers, norm)
    broken = not norm < math.inf or (norm > 1 + ABSURD and measured.model.state == "initial")
    return Finding(
        check="shortcut",
        code="first-layer-jacobian",
        severity="fail" if broken else "warn",
        where=where,
        message=numbers,
        value=norm,
        threshold=1 + (ABSURD if broken else LARGE),
        why=f"1 is the shortcut; the sub-layer beside it is {STABLE}",
        consequence="Gradients that reach the embedding are amplified by up to this, noise included.",
        advice="Make the std of the vectors that enter this layer larger, about one at initialisation.",
    )


def _deeper(measured: Measurements) -> Finding | None:
    """The smallest shortcut behind the first layer, or anywhere where no Jacobian was measured."""
    known = [
        (layer, each)
        for layer in measured.layers
        for each in layer.sub_layers
        if each.shortcut is not None and layer.form != "post-norm"
    ]
    if not known:
        return None
    dead = [(layer, each) for layer, each in known if each.shortcut and not 0 < each.shortcut.median < math.inf]
    if dead:
        return _dead(*dead[0])
    judged = [(a, b) for a, b in known if a.index != measured.layers[0].index or b.measured is None]
    small = [(a, b) for a, b in judged if b.shortcut and b.shortcut.median < SMALL and _jacobian(b) >= 1 + LARGE]
    if not small:
        layer, least = min(known, key=lambda each: each[1].shortcut.median if each[1].shortcut else math.inf)
        value = least.shortcut.median if least.shortcut else math.nan
        return _passed(_where(layer, least), f"the smallest median shortcut has std {value:.3g}", value)
    layer, least = min(small, key=lambda each: each[1].shortcut.median if each[1].shortcut else math.inf)
    value = least.shortcut.median if least.shortcut else math.nan
    return Finding(
        check="shortcut",
        code="small-shortcut",
        severity="warn",
        where=_where(layer, least),
        message=f"the median shortcut has std {value:.3g} and the sub-layer's Jacobian "
        + (f"norm is {_jacobian(least):.3g}" if _jacobian(least) < math.inf else "was not measured")
        + f"; {len(small)} sub-layers are like that",
        value=value,
        threshold=SMALL,
        why="0.1 lies between 0.63 of Scaled Embed and 0.02 of Vanilla; the Jacobian must be 4 or more besides",
        consequence="The norm in front of this sub-layer multiplies gradients by one over this std.",
        advice="Make the std of the embedding vectors about one; all shortcuts start from it.",
    )


def _missing(measured: Measurements) -> Finding | None:
    """Blocks without a shortcut of the kind that the others have."""
    strange = [layer for layer in measured.layers if layer.form == "unknown"]
    if not strange or 2 * len(strange) >= len(measured.layers):
        return None
    return Finding(
        check="shortcut",
        code="missing",
        severity="warn",
        where=f"layer {strange[0].index}",
        message=f"{strange[0].name} does not add to its input alone, as {len(measured.layers) - len(strange)} of the "
        f"{len(measured.layers)} blocks do; {len(strange)} like that",
        value=float(len(strange)),
        threshold=0.0,
        why="blocks of one model are built alike, and the identity beside each sub-layer is what carries the gradient",
        consequence="If the shortcut is missing or scaled, all earlier layers get what the sub-layers let through.",
        advice="Compare this block's forward with the others': x = x + f(norm(x)), and no other x.",
    )


def _dead(layer: LayerReading, sub_layer: SubLayerReading) -> Finding:
    value = sub_layer.shortcut.median if sub_layer.shortcut else math.nan
    return Finding(
        check="shortcut",
        code="no-shortcut",
        severity="fail",
        where=_where(layer, sub_layer),
        message=f"half of the vectors that enter the norm have std {value:.3g}",
        value=value,
        threshold=0.0,
        why="a norm divides by it",
        consequence="The norm returns nothing but its bias, or numbers that are not finite.",
        advice="Look at the embedding and at the layers before this one: something is zero, or has overflowed.",
    )


def _jacobian(sub_layer: SubLayerReading) -> float:
    """Measured norm, else the estimate; without both the shortcut alone is judged."""
    known = sub_layer.measured if sub_layer.measured is not None else sub_layer.estimate
    return math.inf if known is None else _order(known)


def _order(value: float | None) -> float:
    return math.inf if value is None or math.isnan(value) else value


def _entering(sub_layer: SubLayerReading) -> str:
    return f" at a median shortcut of std {sub_layer.shortcut.median:.3g}" if sub_layer.shortcut else ""


def _where(layer: LayerReading, sub_layer: SubLayerReading) -> str:
    return f"layer {layer.index}, {sub_layer.kind}"


def _passed(where: str, message: str, value: float) -> Finding:
    return Finding(check="shortcut", code="shortcut", severity="pass", where=where, message=message, value=value)
