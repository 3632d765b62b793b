"""Depth scaling: whether the matrices that write to the residual stream are smaller than the others, and only they."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from statistics import median

from spikeless.preflight.checks._tensors import READERS, WRITERS, factors, placed_matrices
from spikeless.preflight.findings import SEVERITIES, Finding, Severity
from spikeless.preflight.measurements import Measurements, TensorReading

__all__ = ["depth_scaling"]

MATCH = 0.2
SMALLER = 0.8
MUCH = 5.0

LAWS: tuple[Callable[[TensorReading], float], ...] = (
    lambda matrix: 1.0,
    lambda matrix: 1 / math.sqrt(matrix.fan_in),
    lambda matrix: math.sqrt(2 / (matrix.fan_in + matrix.fan_out)),
)


def depth_scaling(measured: Measurements) -> list[Finding]:
    """Compares the standard deviations of the roles, apart from what their shapes explain.

    2 L sub-layers add to the residual stream; if attention_out and ffn_down are drawn 1/sqrt(2 L) smaller, their sum is
    as large as what one would add. Llama's own initialisation does without and trains, so missing depth scaling
    is never a failure: it is a warning from 13 layers on, where sqrt(2 L) is above 5, unless a norm stands behind the
    sub-layer. If another matrix is smaller by sqrt(2 L) or sqrt(L), within 20 %, and one of these two is not, the
    factor is on the wrong matrix: the sums grow and a matrix within the sub-layer is weak, a failure. Only one of
    the two, or another matrix beside them, is a warning. A matrix that is zero in all layers counts as scaled, and what
    the shape explains (1/sqrt(d_in), Xavier) is no scaling. DeepNorm
    scales value and ffn_up as well. The thresholds are ours.

    Reference: Radford et al. 2019 (1/sqrt(2 L)); Wang et al., arXiv 2203.00555 (DeepNorm); pytorch/torchtitan#3334
        (ffn_up scaled as well).
    """
    if measured.model.state != "initial" or measured.model.num_layers < 2:
        return []
    found = [_judge(roles, measured) for roles in _relative(measured)]
    return sorted((each for each in found if each is not None), key=lambda each: SEVERITIES.index(each.severity))[:1]


def _judge(roles: Mapping[str, float], measured: Measurements) -> Finding | None:
    num_layers = measured.model.num_layers
    writers = {role: roles[role] for role in WRITERS if role in roles}
    readers = {role: roles[role] for role in READERS if role in roles}
    if not writers or not readers:
        return None
    scaled = {role for role, factor in writers.items() if factor <= (2 * num_layers) ** -0.25}
    misplaced = {role: factor for role, factor in readers.items() if _looks_scaled(factor, num_layers)}
    if len(scaled) == len(writers) and _is_deep_norm(misplaced, writers, num_layers):
        misplaced = {}
    if misplaced:
        return _misplaced(misplaced, scaled, writers, measured)
    if scaled and len(scaled) < len(writers):
        return _partial(scaled, writers, measured)
    return _right(writers, measured) if scaled else _none(writers, measured)


def _is_deep_norm(misplaced: Mapping[str, float], writers: Mapping[str, float], num_layers: int) -> bool:
    if not {"value", "ffn_up"} <= set(misplaced) <= {"value", "ffn_up", "ffn_gate"}:
        return False
    drawn = [factor for factor in (*misplaced.values(), *writers.values()) if factor > 0]
    return all(abs(math.log(factor) + math.log(8 * num_layers) / 4) <= MATCH for factor in drawn)


def _relative(measured: Measurements) -> list[dict[str, float]]:
    """Standard deviation of each role over what its peers have, apart from its shape; 0 for one that is all zero.

    The peers' is one that two roles share, the largest of those that explain most roles. Of constant, 1/sqrt(d_in)
    and Xavier those laws of the shape are taken, one or several, that explain most roles: as their peers, or as
    scaled. Products of low-rank factors are left out.
    """
    matrices = placed_matrices(measured)
    low_rank = factors(matrices)
    by_role: dict[str, list[TensorReading]] = defaultdict(list)
    for each in matrices:
        if each.role in READERS + WRITERS and math.isfinite(each.std) and each.name not in low_rank:
            by_role[each.role].append(each)
    zero = {role: 0.0 for role, group in by_role.items() if median(each.std for each in group) == 0}
    candidates = []
    for law in LAWS:
        stds = {role: median(each.std / law(each) for each in group) for role, group in by_role.items()}
        stds = {role: std for role, std in stds.items() if role not in zero}
        if stds:
            fused = not {"query", "key"} & set(stds)  # one role then stands for three matrices
            shared = [a for r, a in stds.items() if fused or any(q != r and _close(a, b) for q, b in stds.items())]
            references = sorted(shared or [max(stds.values())], reverse=True)
            relative = [{role: std / reference for role, std in stds.items()} for reference in references]
            candidates.append(max(relative, key=lambda each: _explained(each, measured.model.num_layers)))
    explained = [_explained(each, measured.model.num_layers) for each in candidates]
    return [each | zero for each, count in zip(candidates, explained, strict=True) if count == max(explained)]


def _explained(relative: Mapping[str, float], num_layers: int) -> int:
    """How many roles are as their peers, or as scaled."""
    return sum(_close(factor, 1) or _looks_scaled(factor, num_layers) for factor in relative.values())


def _close(a: float, b: float) -> bool:
    return abs(math.log(a / b)) <= MATCH / 2


def _looks_scaled(factor: float, num_layers: int) -> bool:
    if not 0 < factor <= SMALLER:
        return False
    return any(abs(math.log(factor * math.sqrt(depth))) <= MATCH for depth in (num_layers, 2 * num_layers))


def _where(measured: Measurements, role: str) -> str:
    return next((each.name for each in measured.tensors if each.role == role), "model")


def _numbers(factors_of: Mapping[str, float]) -> str:
    return ", ".join(f"{role} {factor:.2g}" for role, factor in factors_of.items())


def _misplaced(
    misplaced: Mapping[str, float], scaled: set[str], writers: Mapping[str, float], measured: Measurements
) -> Finding:
    num_layers = measured.model.num_layers
    role, factor = min(misplaced.items(), key=lambda item: item[1])
    extra = len(scaled) == len(writers)
    return Finding(
        check="depth_scaling",
        code="extra-matrix" if extra else "wrong-matrix",
        severity="warn" if extra else "fail",
        where=_where(measured, role),
        message=f"relative to their peers: {_numbers(misplaced)} where depth scaling would be "
        f"{1 / math.sqrt(2 * num_layers):.2g} or {1 / math.sqrt(num_layers):.2g}; {_numbers(writers)}",
        value=factor,
        threshold=1.0,
        why="depth scaling is for the matrices whose output is added to the residual stream: attention_out, ffn_down",
        consequence="The sub-layer's inner matrix is weak, which the right scaling does not need."
        if extra
        else "The residual stream grows as without scaling, and the scaled matrix is weak for nothing.",
        advice="Scale the output projection and the second feed-forward matrix, and no other.",
    )


def _partial(scaled: set[str], writers: Mapping[str, float], measured: Measurements) -> Finding:
    left = next(role for role in writers if role not in scaled)
    return Finding(
        check="depth_scaling",
        code="one-of-two",
        severity="warn",
        where=_where(measured, left),
        message=f"only one of the two matrices that write to the residual stream is scaled: {_numbers(writers)} "
        f"relative to the other roles, {1 / math.sqrt(2 * measured.model.num_layers):.2g} meant",
        value=writers[left],
        threshold=(2 * measured.model.num_layers) ** -0.25,
        why="halfway, on a logarithmic scale, between not scaled and 1/sqrt(2 L)",
        consequence="The sub-layers that are not scaled dominate the residual stream.",
        advice=f"Scale {left} by 1/sqrt(2 L) as well.",
    )


def _none(writers: Mapping[str, float], measured: Measurements) -> Finding:
    depth = math.sqrt(2 * measured.model.num_layers)
    normed = any(each.form in ("sandwich", "post-norm") for each in measured.layers)
    severity: Severity = "warn" if depth > MUCH and not normed else "pass"
    return Finding(
        check="depth_scaling",
        code="none",
        severity=severity,
        where=_where(measured, next(iter(writers))) if severity == "warn" else "model",
        message=f"no depth scaling: {_numbers(writers)} relative to the other roles, where sqrt(2 L) is {depth:.2g}"
        + ("; norms behind the sub-layers replace it" if normed else ""),
        value=depth,
        threshold=MUCH,
        why="below a factor of 5 it is no more than two initialisations differ; Llama's own has none at any depth",
        consequence=""
        if severity == "pass"
        else "The residual stream's std grows with the square root of depth from the first step on.",
        advice="" if severity == "pass" else "Divide the std of attention_out and ffn_down by sqrt(2 L).",
    )


def _right(writers: Mapping[str, float], measured: Measurements) -> Finding:
    return Finding(
        check="depth_scaling",
        code="scaled",
        severity="pass",
        where="model",
        message=f"depth scaling: {_numbers(writers)} relative to the other roles, "
        f"1/sqrt(2 L) is {1 / math.sqrt(2 * measured.model.num_layers):.2g}",
        value=max(writers.values()),
        threshold=(2 * measured.model.num_layers) ** -0.25,
    )
