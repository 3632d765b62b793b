"""Weights that no model can work with, initial or trained: not finite, never written, zero, constant."""

from collections import defaultdict
from collections.abc import Sequence

from spikeless.preflight.checks._tensors import WRITERS, factors, is_matrix, listed, placed_matrices
from spikeless.preflight.findings import Finding, Severity
from spikeless.preflight.measurements import Measurements, TensorReading
from spikeless.words import counted

__all__ = ["broken_weights"]

ZERO_AT_FIRST = ("query", *WRITERS, "head")
PARTNERS = (("query", "key"), ("value", "attention_out"), ("ffn_up", "ffn_down"))
SAME_ROWS = 1e-6


def broken_weights(measured: Measurements) -> list[Finding]:
    """Looks for entries that are not finite, memory nobody wrote to, zero and constant matrices, zero gains.

    One entry that is not finite makes the loss so. A matrix of one value has rank one, or none: its outputs are
    all alike and stay so, since their gradients are alike. Some schemes start query, the last matrix of a
    sub-layer or the head at zero, in all layers; that learns as long as the matrix beside it is not zero as well.
    A zero in one layer of many is no scheme. One factor of a low-rank product may be zero at first, not both.
    A norm whose gain is zero passes nothing on; behind a sub-layer that is a scheme too.

    Reference: Yang et al., arXiv 2203.03466 (zero query and head); Zhang et al., arXiv 1901.09321 (zero last
        matrix).
    """
    if not measured.tensors:
        return []
    problems = [
        *_not_finite(measured.tensors),
        *_never_written(measured.tensors),
        *_zero(measured),
        *_constant(measured.tensors),
        *_zero_gain(measured),
        *_same_rows(measured),
    ]
    if any(each.severity != "pass" for each in problems):
        return problems
    return [
        *problems,
        Finding(
            check="broken_weights",
            code="weights",
            severity="pass",
            where="model",
            message=f"none of {counted(len(measured.tensors), 'tensor')} is without finite, written, differing numbers",
        ),
    ]


def _finding(
    code: str,
    severity: Severity,
    tensors: Sequence[TensorReading],
    *,
    message: str,
    value: float | None = None,
    threshold: float | None = None,
    why: str = "",
    consequence: str = "",
    advice: str = "",
) -> Finding:
    return Finding(
        check="broken_weights",
        code=code,
        severity=severity,
        where=tensors[0].name,
        message=message,
        value=value,
        threshold=threshold,
        why=why,
        consequence=consequence,
        advice=advice,
    )


def _not_finite(tensors: Sequence[TensorReading]) -> list[Finding]:
    bad = [each for each in tensors if each.finite < 1]
    if not bad:
        return []
    least = min(bad, key=lambda each: each.finite)
    return [
        _finding(
            "not-finite",
            "fail",
            bad,
            message=f"{listed(bad)} {_have(bad)} NaN or infinite entries, "
            f"at most {100 * (1 - least.finite):.2g} % of a tensor",
            value=least.finite,
            threshold=1.0,
            why="one entry that is not finite reaches every logit",
            consequence="The loss is not finite from the first step on.",
            advice="Go back to an earlier checkpoint, or draw these weights again.",
        )
    ]


def _never_written(tensors: Sequence[TensorReading]) -> list[Finding]:
    bad = [each for each in tensors if each.declared is not None and not each.declared.written]
    if not bad:
        return []
    return [
        _finding(
            "never-written",
            "fail",
            bad,
            message=f"{listed(bad)} {_have(bad)} memory that the building code did not write, or only a part of it",
            why="torch.empty holds whatever was in the memory before",
            consequence="The weights are whatever lay there, and other numbers in every process.",
            advice="Initialise every parameter, and tie weights before initialisation or initialise again afterwards.",
        )
    ]


def _zero(measured: Measurements) -> list[Finding]:
    matrices = placed_matrices(measured)
    pairs = factors(matrices)
    zero = [each for each in measured.tensors if _is_zero(each) and is_matrix(each)]
    whole = {role for role in {each.role for each in matrices} if all(map(_is_zero, _with_role(matrices, role)))}
    dead = {role for pair in PARTNERS if whole.issuperset(pair) for role in pair}
    groups: dict[tuple[Severity, str | None], list[TensorReading]] = defaultdict(list)
    for each in zero:
        pair = pairs.get(each.name)
        half = pair is not None and not (_is_zero(pair.outer) and _is_zero(pair.inner))
        scheme = half or (each.role in ZERO_AT_FIRST and each.role in whole and each.role not in dead)
        groups[_zero_severity(each, scheme, measured), each.role].append(each)
    return [_zero_finding(severity, group, role, measured) for (severity, role), group in groups.items()]


def _zero_severity(tensor: TensorReading, scheme: bool, measured: Measurements) -> Severity:
    trained = measured.model.state == "trained"
    if scheme:
        return "warn" if trained and tensor.role != "head" else "fail" if trained else "pass"
    if tensor.role is None or (trained and tensor.role in WRITERS):
        return "warn"  # of a trained block: added as an identity, or cut out
    return "fail"


def _zero_finding(severity: Severity, group: list[TensorReading], role: str | None, measured: Measurements) -> Finding:
    trained = measured.model.state == "trained"
    return _finding(
        "zero-at-first" if severity == "pass" else "zero-matrix",
        severity,
        group,
        message=f"{listed(group)} {_is(group)} all zero ({role or 'not placed'})",
        value=0.0,
        why=""
        if severity == "pass"
        else "training moves every weight that gets a gradient"
        if trained
        else "schemes that start at zero do so in all layers, with query, attention_out, ffn_down or head, "
        "and leave the matrix beside it alone",
        consequence=""
        if severity == "pass"
        else "The sub-layer adds nothing."
        if trained
        else "It passes nothing on, and what stands before it gets no gradient.",
        advice="" if severity == "pass" else "Check that it was initialised, and that a checkpoint's key matched it.",
    )


def _constant(tensors: Sequence[TensorReading]) -> list[Finding]:
    found = []
    groups: dict[Severity, list[TensorReading]] = {
        "fail": [each for each in tensors if _is_constant(each) and each.role is not None],
        "warn": [each for each in tensors if _is_constant(each) and each.role is None],
    }
    for severity, bad in groups.items():
        if bad:
            found.append(
                _finding(
                    "constant-matrix",
                    severity,
                    bad,
                    message=f"{listed(bad)} {_have(bad)} one value everywhere ({bad[0].mean:.3g} in the first)",
                    value=0.0,
                    threshold=0.0,
                    why="any draw has a std above zero",
                    consequence="All its outputs are alike and get the same gradients, so they stay alike.",
                    advice="Draw it at random; a loop that fills norms with ones may have caught it.",
                )
            )
    return found


def _zero_gain(measured: Measurements) -> list[Finding]:
    closed = [each for each in measured.tensors if each.gain_min == 0 == each.gain_max]
    if not closed:
        return []
    behind = {each.index for each in measured.layers if each.form == "sandwich"}
    scheme = measured.model.state == "initial" and all(each.layer in behind for each in closed)
    return [
        _finding(
            "zero-gain",
            "warn" if scheme else "fail",
            closed,
            message=f"{listed(closed)} {_have(closed)} a gain of 0 everywhere",
            value=0.0,
            threshold=1.0,
            why="a norm's gain starts at 1; 0 is a scheme only behind a sub-layer",
            consequence="The norm passes nothing on, and the weights around it get no gradient.",
            advice="Fill norm weights with ones; with zeros only where the norm computes 1 + w.",
        )
    ]


def _same_rows(measured: Measurements) -> list[Finding]:
    tev = measured.tev
    if tev is None or not tev.mean > 0 or tev.std > SAME_ROWS * tev.mean:
        return []
    named = [each for each in measured.tensors if each.name == tev.name] or list(measured.tensors[:1])
    return [
        _finding(
            "same-rows",
            "fail",
            named,
            message=f"the rows of {tev.name} have one TEV, {tev.mean:.3g}: std over rows {tev.std:.2g}",
            value=tev.std / tev.mean,
            threshold=SAME_ROWS,
            why="rows that were drawn one by one differ in their TEV by about 1/sqrt(2 D)",
            consequence="Every token enters the model as the same vector.",
            advice="Draw each row of the embedding.",
        )
    ]


def _is_zero(tensor: TensorReading) -> bool:
    return tensor.zeros == 1.0


def _is_constant(tensor: TensorReading) -> bool:
    return is_matrix(tensor) and tensor.constant and not _is_zero(tensor)


def _with_role(tensors: Sequence[TensorReading], role: str | None) -> list[TensorReading]:
    return [each for each in tensors if each.role == role]


def _have(tensors: Sequence[TensorReading]) -> str:
    return "has" if len(tensors) == 1 else "have"


def _is(tensors: Sequence[TensorReading]) -> str:
    return "is" if len(tensors) == 1 else "are"
