"""Gains of norms before training."""

import math

from spikeless.preflight.checks._tensors import listed
from spikeless.preflight.findings import Finding, Severity
from spikeless.preflight.measurements import Measurements, TensorReading

__all__ = ["norm_gains"]

OFF = 0.05
FAR = 5.0


def norm_gains(measured: Measurements) -> list[Finding]:
    """Compares the effective gains of norms with 1, before training.

    A gain g multiplies the sub-layer's bound by g. Known exceptions fall with depth: 1/sqrt(l), 1/sqrt(2 l),
    1/sqrt(L), 1/sqrt(2 L), in LayerNorm scaling and behind sub-layers. Within 5 % of 1 or of these is fine. Beyond
    that it is a warning, and a failure above 5, where one sub-layer is 5 times what its matrices say, or below a
    fifth of 1/sqrt(2 L), where it adds nothing. Gains of 0 are reported by broken_weights. The thresholds are ours.

    Reference: Sun et al., arXiv 2502.05795 (LayerNorm scaling); Yin et al., arXiv 2504.07866 (depth-scaled sandwich
        norm).
    """
    if measured.model.state != "initial":
        return []
    norms = [each for each in measured.tensors if each.gain_min is not None and each.gain_max is not None]
    judged = {each.name: _judge(each, max(1, measured.model.num_layers)) for each in norms}
    found = []
    for severity in ("fail", "warn"):
        bad = [each for each in norms if judged[each.name] == severity]
        if bad:
            found.append(_off(severity, bad, measured.model.num_layers))
    if not norms or found:
        return found
    return [
        Finding(
            check="norm_gains",
            code="gain",
            severity="pass",
            where="model",
            message=f"the gains of {len(norms)} norms are 1, or a known function of depth",
            value=1.0,
            threshold=1.0,
        )
    ]


def _range(tensor: TensorReading) -> tuple[float, float]:
    return tensor.gain_min or 0.0, tensor.gain_max or 0.0


def _judge(tensor: TensorReading, num_layers: int) -> Severity:
    low, high = _range(tensor)
    if low == 0 == high:
        return "pass"
    if not (math.isfinite(low) and math.isfinite(high)):
        return "pass"  # reported as not finite
    layer = 1 if tensor.layer is None else tensor.layer + 1
    for expected in (1.0, *(1 / math.sqrt(each) for each in (layer, 2 * layer, num_layers, 2 * num_layers))):
        if expected * (1 - OFF) <= low and high <= expected * (1 + OFF):
            return "pass"
    largest = max(abs(low), abs(high))
    return "fail" if largest > FAR or largest < 1 / (FAR * math.sqrt(2 * num_layers)) else "warn"


def _off(severity: Severity, bad: list[TensorReading], num_layers: int) -> Finding:
    low, high = _range(bad[0])
    large = max(abs(low), abs(high)) > 1
    limit = FAR if large else 1 / (FAR * math.sqrt(2 * max(1, num_layers)))
    gains = f"{high:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    return Finding(
        check="norm_gains",
        code="gain-off",
        severity=severity,
        where=bad[0].name,
        message=f"{listed(bad)} a gain of {gains} before training",
        value=high if large else low,
        threshold=limit if severity == "fail" else 1 + OFF if large else 1 - OFF,
        why="norms start at 1, or at a power of the depth; a gain g multiplies its sub-layer's Jacobian by g",
        consequence="Sub-layers are stronger than their matrices say, and gradients grow faster over depth."
        if large
        else "Sub-layers are weaker than their matrices say; at a small gain they add nothing.",
        advice="Fill norm weights with ones; with zeros only where the norm computes 1 + w.",
    )
