"""Truncated normal draws whose bounds cut nothing off."""

import math

from spikeless.preflight.checks._tensors import at_worst, listed
from spikeless.preflight.findings import Finding
from spikeless.preflight.measurements import Measurements, TensorReading

__all__ = ["truncation"]

IDLE = 5.0


def truncation(measured: Measurements) -> list[Finding]:
    """Looks where truncated normal draws were cut, in standard deviations.

    The bounds of `trunc_normal_` are absolute numbers, -2 and 2 unless told otherwise: 100 standard deviations of
    N(0, 0.02^2). Beyond 5 standard deviations lie 6 of 10 million draws, so a bound there cuts nothing off. The
    weights are then those of a plain normal, which trains: a warning, since the code does not do what it says.

    Reference: pytorch/torchtitan#3334.
    """
    if measured.model.state != "initial":
        return []
    cut = [(each, _bound(each)) for each in measured.tensors if _bound(each) is not None]
    idle = [(each, bound) for each, bound in cut if bound is not None and bound >= IDLE]
    if not cut:
        return []
    if not idle:
        return [
            Finding(
                check="truncation",
                code="truncation",
                severity="pass",
                where="model",
                message=f"{len(cut)} truncated normal draws were cut below {IDLE:g} standard deviations",
                threshold=IDLE,
            )
        ]
    bound = max(bound for _, bound in idle)
    names = [each for each, _ in idle]
    return [
        Finding(
            check="truncation",
            code="idle",
            severity="warn",
            where=names[0].name,
            message=f"{listed(names)} drawn from a normal that was cut at {bound:.3g} standard deviations"
            f"{at_worst(names)}: nowhere",
            value=bound,
            threshold=IDLE,
            why="beyond 5 standard deviations lie 6 of 10 million draws",
            consequence="Weights beyond 3 or 4 standard deviations stay, though the code means to leave them out.",
            advice="Give the bounds in units of the std: a=-3 * std, b=3 * std.",
        )
    ]


def _bound(tensor: TensorReading) -> float | None:
    """Distance of the nearer bound from the mean, in standard deviations; None if the draw was not a truncated one."""
    told = tensor.declared
    if told is None or told.distribution != "truncated normal":
        return None
    return min(math.inf if edge is None else abs(edge) for edge in (told.low, told.high))
