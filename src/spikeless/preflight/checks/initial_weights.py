"""The standard deviations of initial weights against those that known schemes give."""

import math
from collections import defaultdict

from spikeless.preflight.checks._tensors import (
    at_worst,
    factors,
    is_matrix,
    known_stds,
    listed,
    placed_matrices,
    relative_noise,
    written,
)
from spikeless.preflight.findings import Finding, Severity
from spikeless.preflight.measurements import Measurements, ModelReading, TensorReading

__all__ = ["initial_weights"]

FAR = 2.0
VERY_FAR = 5.0
NOISE = 4.0

Nearest = tuple[str, float]


def initial_weights(measured: Measurements) -> list[Finding]:
    """Compares each drawn matrix with the nearest known scheme, by the factor between the standard deviations.

    Schemes in use lie within a factor of 2 of a neighbour: for D from 768 to 4096 between 0.006 and 0.04, smaller
    for matrices that write to the residual stream. Twice off is between or beside them all. Five times off,
    a sub-layer's Jacobian, which has two matrices and so the factor squared, is 25 times what anyone trains
    with. A matrix the anatomy did not place is only warned of, and at the factor of 5. Of a product of two
    factors either the product or both factors have to fit. The thresholds are ours.

    Reference: Nguyen & Salazar 2019 (small init); Glorot & Bengio 2010; He et al. 2015; Radford et al. 2019 (depth
        scaling); Wang et al., arXiv 2203.00555 (DeepNorm); GPT-NeoX (Wang's init); Yang et al., arXiv 2203.03466 (muP).
    """
    if measured.model.state != "initial":
        return []
    pairs = factors(measured.tensors)
    groups: dict[tuple[Severity, str], list[tuple[float, TensorReading, Nearest]]] = defaultdict(list)
    judged = 0
    for each in _drawn(measured):
        judged += 1
        pair = pairs.get(each.name)
        if pair is not None and _fits(pair.std, each, pair.inner.fan_in, pair.outer.fan_out, measured.model):
            continue
        nearest = _nearest(each.std, each, each.fan_in, each.fan_out, measured.model)
        ratio = each.std / nearest[1]
        off = max(ratio, 1 / ratio) / (1 + NOISE * relative_noise(each))
        severity = _severity(off, each.role)
        if severity != "pass":
            groups[severity, "large" if ratio > 1 else "small"].append((off, each, nearest))
    if not judged:
        return []
    return [_far(severity, size, group) for (severity, size), group in groups.items()] or [
        Finding(
            check="initial_weights",
            code="std",
            severity="pass",
            where="model",
            message=f"the standard deviations of {judged} matrices are within a factor of {FAR:g} of a known scheme",
            threshold=FAR,
        )
    ]


def _drawn(measured: Measurements) -> list[TensorReading]:
    """Matrices with a standard deviation to judge; those that are not placed have to be plain ones in a block."""
    unplaced = [each for each in measured.tensors if each.role is None and each.layer is not None]
    plain = [each for each in unplaced if is_matrix(each) and len(each.shape) == 2]
    return [
        each
        for each in (*placed_matrices(measured), *plain)
        if math.isfinite(each.std) and each.std > 0 and written(each)
    ]


def _nearest(std: float, tensor: TensorReading, fan_in: int, fan_out: int, model: ModelReading) -> Nearest:
    width, num_layers = model.width or fan_in, max(1, model.num_layers)
    known = known_stds(tensor.role, fan_in, fan_out, tensor.layer, width, num_layers)
    return min(known.items(), key=lambda item: abs(math.log(item[1] / std)))


def _fits(std: float, tensor: TensorReading, fan_in: int, fan_out: int, model: ModelReading) -> bool:
    if std <= 0:
        return False
    ratio = std / _nearest(std, tensor, fan_in, fan_out, model)[1]
    return max(ratio, 1 / ratio) <= FAR


def _severity(off: float, role: str | None) -> Severity:
    if off > VERY_FAR:
        return "warn" if role is None else "fail"
    return "warn" if off > FAR and role is not None else "pass"


def _far(severity: Severity, size: str, group: list[tuple[float, TensorReading, Nearest]]) -> Finding:
    _, tensor, (formula, std) = max(group, key=lambda item: item[0])
    bad = [each for _, each, _ in group]
    factor = FAR if severity == "warn" and tensor.role is not None else VERY_FAR
    times = tensor.std / std if size == "large" else std / tensor.std
    return Finding(
        check="initial_weights",
        code=f"std-{size}",
        severity=severity,
        where=bad[0].name,
        message=f"{listed(bad)} std {tensor.std:.3g}{at_worst(bad)}: {times:.2g} times too {size} for the nearest "
        f"known scheme, {formula} = {std:.3g}",
        value=tensor.std,
        threshold=std * factor if size == "large" else std / factor,
        why=f"known schemes lie within a factor of {FAR:g} of each other; at {VERY_FAR:g} a sub-layer of two matrices "
        f"is {VERY_FAR**2:g} times off",
        consequence="The sub-layer outweighs its shortcut, and gradients grow from layer to layer."
        if size == "large"
        else "The sub-layer adds next to nothing, and Adam's first updates are larger than the weights.",
        advice=f"Draw it with std {std:.3g} ({formula}), or check what scaled it.",
    )
