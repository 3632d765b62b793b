"""How the gradient and the residual stream change over depth."""

import math

from spikeless.preflight.findings import Finding
from spikeless.preflight.measurements import Measurements

__all__ = ["gradient_flow"]

GROWS = 5.0
EXPLODES = 1e4
FADES = 1e-2
LOST = 3.0
STREAM_GROWS = 100.0
STREAM_OVERFLOWS = 1e8


def gradient_flow(measured: Measurements) -> list[Finding]:
    """Judges the norm of the gradient at the first block over that at the last, and the growth of the stream.

    *Gradient*: in a pre-norm model it follows the inverse of the stream's standard deviation. Measured at 24 x 256:
    1.03 to 1.2 with Embed LN and Scaled Embed, 7 to 12 with Vanilla; by theory 14 to 31 for the papers' shapes. 5
    lies between. Initial models that fail: 10 000, where the last layers' gradients vanish beside the first's
    in Adam's epsilon and in bf16. A hundredth the other way means that the first layers hardly learn.
    *Block*: the identity beside the sub-layers carries the whole gradient back, so before training a block's input has
    at least as much as its output, within 0.3 % in 40 healthy models of 12 families. Below a third the shortcut is cut.
    *Stream*: its variance grows linearly where sub-layers are independent, by 1.1 to 200 from the first block to the
    last with depth-scaled schemes. A hundredfold growth that is exponential is what MLRA's paper ties to exploding
    gradients; 1e8, a factor of 10 000 in the values, leaves fp16.

    Reference: Takase et al., arXiv 2312.16903, formula (7); Chung et al., arXiv 2409.07787, section 3.2. The thresholds
        are ours.
    """
    found = [each for each in (_gradient(measured), _lost(measured), _stream(measured)) if each is not None]
    problems = [each for each in found if each.severity != "pass"]
    return problems or found[:1]


def _gradient(measured: Measurements) -> Finding | None:
    norms = [(each.index, each.gradient_norm) for each in measured.layers if each.gradient_norm is not None]
    broken = next((each for each in norms if not math.isfinite(each[1])), None)
    if broken is not None:
        return _not_finite(*broken)
    zero = [index for index, norm in norms if norm == 0]
    if zero:
        return _zero(measured, zero[0], len(zero) == len(norms))
    growth = measured.gradient_growth
    if growth is None:
        return None
    if not math.isfinite(growth.ratio):
        return _not_finite(0, growth.ratio)
    ratio = 1 / growth.ratio if growth.ratio > 0 else math.inf
    numbers = (
        f"the gradient at the first block is {ratio:.3g} times that at the last, slope {growth.log_slope:+.2g}/layer"
    )
    if FADES < ratio < GROWS:
        return _passed("gradient", numbers, ratio)
    if ratio <= FADES:
        return Finding(
            check="gradient_flow",
            code="gradient-vanishing",
            severity="warn",
            where="model",
            message=numbers,
            value=ratio,
            threshold=FADES,
            why="a hundredth: the first layers' share of the update is lost in rounding before Adam rescales it",
            consequence="The first layers and the embedding hardly learn, or learn from Adam's epsilon.",
            advice="Look for a residual scale below one, a norm on the stream, or a shortcut that is not the identity.",
        )
    absurd = ratio > EXPLODES and measured.model.state == "initial"
    return Finding(
        check="gradient_flow",
        code="gradient-growth",
        severity="fail" if absurd else "warn",
        where="model",
        message=numbers,
        value=ratio,
        threshold=EXPLODES if absurd else GROWS,
        why="beyond it the deep layers' gradients drown in Adam's epsilon and in the clipped norm"
        if absurd
        else "1.03 to 1.2 with a large shortcut, 7 to 31 in the papers' Vanilla shapes",
        consequence="The shallow layers and the embedding get the largest and noisiest gradient, and the loss spikes.",
        advice="Make the shortcut large or the sub-layers small; a smaller learning rate hides it.",
    )


def _lost(measured: Measurements) -> Finding | None:
    """The block in which the largest part of the gradient is lost on the way back."""
    norms = [each.gradient_norm for each in measured.layers]
    known = [
        (after / before, layer, after, before)
        for layer, before, after in zip(measured.layers, norms, norms[1:], strict=False)
        if before is not None and after is not None and 0 < before < math.inf and after < math.inf
    ]
    if measured.model.state != "initial" or not known:
        return None
    factor, layer, after, before = max(known, key=lambda each: each[0])
    if factor < LOST:
        return None
    return Finding(
        check="gradient_flow",
        code="gradient-lost",
        severity="warn",
        where=f"layer {layer.index}",
        message=f"the gradient falls from {after:.3g} behind {layer.name} to {before:.3g} before it, by {factor:.3g}",
        value=factor,
        threshold=LOST,
        why="a shortcut of the identity hands the whole gradient on; healthy models lose less than 1 % in a block",
        consequence="All layers before this block learn from what is left.",
        advice="Look for a shortcut that is missing, scaled down or detached in this block.",
    )


def _not_finite(layer: int, value: float) -> Finding:
    return Finding(
        check="gradient_flow",
        code="gradient-not-finite",
        severity="fail",
        where="model",
        message=f"the gradient's norm at block {layer} is {value}",
        value=value,
        why="every number has to be finite",
        consequence="One step on this writes NaN into every weight.",
        advice="Find the last block whose gradient is finite; the one before it overflows or divides by zero.",
    )


def _zero(measured: Measurements, layer: int, everywhere: bool) -> Finding:
    """An all-zero head stops every gradient for one step only; anything else for ever."""
    head = any(each.role == "head" and each.zeros == 1.0 for each in measured.tensors)
    harmless = everywhere and head and measured.model.state == "initial"
    return Finding(
        check="gradient_flow",
        code="gradient-zero",
        severity="warn" if harmless else "fail",
        where="model",
        message=f"the gradient at block {layer} is exactly zero" + (": the head is all zero" if harmless else ""),
        value=0.0,
        threshold=0.0,
        why="zero times anything is zero: whatever lies before this block gets no gradient",
        consequence="Only the head learns in the first step, and the audit sees no gradient flow."
        if harmless
        else "Nothing before this block ever learns.",
        advice="Nothing, if the head is meant to start at zero; the gradient flow can be audited a step later."
        if harmless
        else "Look for a detached tensor, an all-zero matrix, or a block without a shortcut.",
    )


def _stream(measured: Measurements) -> Finding | None:
    growth = measured.residual_growth
    if growth is None:
        return None
    numbers = f"the stream's variance grows by {growth.ratio:.3g} from the first block to the last, {growth.better}"
    initial = measured.model.state == "initial"
    overflows = not math.isfinite(growth.ratio) or (initial and growth.ratio > STREAM_OVERFLOWS)
    if not overflows and not (growth.better == "exponential" and growth.ratio >= STREAM_GROWS):
        return _passed("stream", numbers, growth.ratio)
    return Finding(
        check="gradient_flow",
        code="residual-growth",
        severity="fail" if overflows else "warn",
        where="model",
        message=f"{numbers}, slope of its logarithm {growth.log_slope:+.2g}/layer",
        value=growth.ratio,
        threshold=STREAM_OVERFLOWS if overflows else STREAM_GROWS,
        why="a factor of 10 000 in the values leaves fp16"
        if overflows
        else "independent sub-layers add up linearly; a hundredfold exponential growth is what goes with instability",
        consequence="Deep sub-layers no longer change the stream, and gradients grow on their way to the shallow ones.",
        advice="Divide the matrices that write to the residual stream by sqrt(2 L), or make the shortcut large.",
    )


def _passed(code: str, message: str, value: float) -> Finding:
    return Finding(check="gradient_flow", code=code, severity="pass", where="model", message=message, value=value)
