"""Condition 1, small sub-layers: their strength before the shortcut divides it, and whether the bounds hold."""

import math

from spikeless.preflight.findings import Finding
from spikeless.preflight.measurements import LayerReading, MatrixReading, Measurements, SubLayerReading

__all__ = ["sub_layers"]

LARGE = 3.0
TOLERANCE = 1.001
DEPENDENT = 1.5
AMPLIFIED = 1e6


def sub_layers(measured: Measurements) -> list[Finding]:
    """Judges sigma_1 sigma_2 C_ffn and sigma_O C_Attn, exact bounds against measurement, and independent entries.

    *Strength* (initial weights): the gain of (15) or (20) times the shortcut, what the gain would be with the ideal
    shortcut of 1. From 3 on, the threshold of the shortcut's check, no change of the embedding can bring the gain
    below it. Depth-scaled schemes have 3.6/sqrt(2 L) with small init, Xavier 6.9 at any depth, N(0, 0.02^2) without
    depth scaling 9 D 0.02^2 for two matrices: 3 is crossed at D = 830.
    *Bounds* are claimed with exact spectral norms, so a measured norm above one by more than 0.1 % (the
    accuracy of Lanczos) says that an assumption does not hold.
    *Independent entries* (initial weights): the largest singular value of such a matrix is within a few percent of
    sigma (sqrt(m) + sqrt(n)); half as much again has structure, a mean or a row that stands out.

    Reference: Takase et al., arXiv 2312.16903, formulas (11), (15), (20); Vershynin, arXiv 1011.3027 for the largest
        singular value. The thresholds are ours.
    """
    judged = [_strength(measured), *_bounds(measured), _dependent(measured), _amplified(measured)]
    found = [each for each in judged if each is not None]
    problems = [each for each in found if each.severity != "pass"]
    return problems or found[:1]


def _strength(measured: Measurements) -> Finding | None:
    """The strongest sub-layer, by theory or, where there is none, by the estimates."""
    if measured.model.state != "initial":
        return None
    if measured.theory is not None and measured.theory.sub_layers:
        known = [(each.gain * each.shortcut, each.layer, each.kind) for each in measured.theory.sub_layers]
    else:
        known = [
            ((each.estimate - 1) * each.shortcut.median, layer.index, each.kind)
            for layer in measured.layers
            for each in layer.sub_layers
            if each.estimate is not None and each.shortcut is not None
        ]
    known = [each for each in known if math.isfinite(each[0])]
    if not known:
        return None
    value, layer, kind = max(known)
    where = f"layer {layer}, {kind}"
    normed = any(each.form == "sandwich" for each in measured.layers if each.index == layer)
    named = "; a norm behind it sets its size" if normed else _strongest(measured, layer, kind)
    numbers = f"the strongest sub-layer has {value:.3g} in the place of sigma_1 sigma_2 C_ffn{named}"
    if value < LARGE:
        return _passed(where, numbers, value)
    return Finding(
        check="sub_layers",
        code="large-sub-layer",
        severity="warn",
        where=where,
        message=numbers,
        value=value,
        threshold=LARGE,
        why="with the ideal shortcut of 1 this is the gain itself; depth-scaled schemes stay below 2.6",
        consequence="Sub-layers amplify gradients whatever is done to the embedding, and the stream grows with depth.",
        advice="Lower the gains of the norms behind the sub-layers, to 1/sqrt(2 L); the matrices' std cancels in them."
        if normed
        else "Divide the matrices that write to the residual stream by sqrt(2 L), or draw all with sqrt(2/(5 D)).",
    )


def _strongest(measured: Measurements, layer: int, kind: str) -> str:
    """Which matrix of the sub-layer is the furthest above small init's standard deviation."""
    matrices = [
        matrix
        for each in measured.layers
        if each.index == layer
        for sub_layer in each.sub_layers
        if sub_layer.kind == kind
        for matrix in sub_layer.matrices
        if matrix.role not in ("query", "key") and math.isfinite(matrix.std)
    ]
    if not matrices or not measured.model.num_layers:
        return ""
    small = math.sqrt(2 / (5 * measured.model.width))
    deep = small / math.sqrt(2 * measured.model.num_layers)
    ratio, name = max(
        (each.std / (deep if each.role in ("attention_out", "ffn_down") else small), each.name) for each in matrices
    )
    return f"; {name} has {ratio:.3g} times the std of small init"


def _bounds(measured: Measurements) -> list[Finding]:
    """Measured norms against bounds: those that are broken, else how far below the closest one is."""
    known = [
        (each.measured / each.bound, layer, each)
        for layer in measured.layers
        for each in layer.sub_layers
        if each.measured is not None and each.bound is not None and each.bound > 0
    ]
    known = [each for each in known if math.isfinite(each[0])]
    if not known:
        return []
    broken = [each for each in known if each[0] > TOLERANCE]
    if not broken:
        ratio, layer, closest = max(known, key=lambda each: each[0])
        loosest = 1 / min(each[0] for each in known) if all(each[0] > 0 for each in known) else math.inf
        message = f"all {len(known)} bounds hold, by factors of {1 / ratio if ratio else math.inf:.3g} to {loosest:.3g}"
        return [_passed(_where(layer, closest), message, ratio)]
    return [
        Finding(
            check="sub_layers",
            code="bound-violated",
            severity="warn",
            where=_where(layer, each),
            message=f"the bound does not hold here: measured {each.measured:.6g}, bound {each.bound:.6g}"
            + (f" ({each.note})" if each.note else ""),
            value=each.measured,
            threshold=(each.bound or 0.0) * TOLERANCE,
            why="exact spectral norms bound the Jacobian; 0.1 % is left for the accuracy of both",
            consequence="What the bounds say about this model is not to be relied on.",
            advice="The block does something the bound does not know of; go by the measured column, and report it.",
        )
        for _, layer, each in broken
    ]


def _dependent(measured: Measurements) -> Finding | None:
    """Initial matrices whose entries are not independent."""
    if measured.model.state != "initial":
        return None
    known = [
        (matrix.spectral_norm / matrix.gaussian, matrix)
        for layer in measured.layers
        for each in layer.sub_layers
        for matrix in each.matrices
        if matrix.spectral_norm is not None and matrix.gaussian > 0 and not _is_product(matrix)
    ]
    outliers = [each for each in known if math.isfinite(each[0]) and each[0] > DEPENDENT]
    if not outliers:
        return None
    ratio, matrix = max(outliers, key=lambda each: each[0])
    return Finding(
        check="sub_layers",
        code="dependent-entries",
        severity="warn",
        where=matrix.name,
        message=f"its spectral norm is {matrix.spectral_norm:.3g}, {ratio:.3g} times that of independent entries with "
        f"std {matrix.std:.3g}; {len(outliers)} matrices are like that",
        value=ratio,
        threshold=DEPENDENT,
        why="the largest singular value of independent entries scatters by a few percent around the estimate",
        consequence="The sub-layer is stronger than its standard deviation says, and so are its gradients.",
        advice="Look for a mean that is not zero, rows or columns of another scale, or a low rank.",
    )


def _amplified(measured: Measurements) -> Finding | None:
    """Measured norms that no training survives, in any layer but the first, which the shortcut's check has."""
    known = [
        (each.measured, layer, each)
        for layer in measured.layers[1:]
        for each in layer.sub_layers
        if each.measured is not None
    ]
    if not known:
        return None
    value, layer, worst = max(known, key=lambda each: math.inf if math.isnan(each[0]) else each[0])
    where, numbers = _where(layer, worst), f"the largest measured Jacobian norm behind the first layer is {value:.3g}"
    if value < AMPLIFIED:
        return _passed(where, numbers, value)
    return Finding(
        check="sub_layers",
        code="jacobian",
        severity="fail",
        where=where,
        message=numbers,
        value=value,
        threshold=AMPLIFIED,
        why="a factor of a million in one sub-layer is more than fp16 and bf16 gradients can take",
        consequence="A gradient that passes here overflows or drowns all others.",
        advice="Look at this sub-layer's matrices and norm; one of them has a wrong scale or is not finite.",
    )


def _is_product(matrix: MatrixReading) -> bool:
    return " @ " in matrix.name


def _where(layer: LayerReading, sub_layer: SubLayerReading) -> str:
    return f"layer {layer.index}, {sub_layer.kind}"


def _passed(where: str, message: str, value: float) -> Finding:
    return Finding(check="sub_layers", code="sub-layers", severity="pass", where=where, message=message, value=value)
