"""The planned learning rate against what the first update, and a range test, tolerate."""

import math

from spikeless.preflight.findings import Finding
from spikeless.preflight.measurements import LearningRateReading, Measurements
from spikeless.words import counted

__all__ = ["learning_rate"]

FAR = 19.0
GRID = math.sqrt(10)
ACCURACY = 1 / 16  # of the bisection
BELOW = 5.0  # the best rate is about so many times lower than the one at which the averaged loss rises


def learning_rate(measured: Measurements) -> list[Finding]:
    """Judges the planned rate by eta_c of the first update, and by the rate at which a range test blew up.

    Above eta_c it warns and no more: warm-up makes the first rates small, and the tolerated rate usually grows
    with it. Above 19 eta_c the words are stronger: momentum averages oscillations out, so that Adam in its stride
    is stable up to (2 + 2 beta1) / ((1 - beta1) eta) of preconditioned sharpness, where a single step is up to
    2 / eta; the ratio is 19 at beta1 = 0.9, and beyond it only a falling sharpness saves the run. At or above
    the rate of a blow-up that was seen it fails; at or above the rate that raised the averaged loss it warns.

    Reference: Kalra et al., arXiv 2601.16979 (critical sharpness); Cohen et al., arXiv 2207.14484 (Adam's threshold);
        Smith, arXiv 1506.01186 (range test). The grid factor sqrt(10) is our definition of the largest stable rate.
    """
    reading = measured.learning_rate
    if reading is None:
        return []
    return [*_first_update(reading), *_range_test(reading), *_rise(reading)]


def _first_update(reading: LearningRateReading) -> list[Finding]:
    lr, critical = reading.lr, reading.critical
    if math.isnan(critical):
        return []
    if not reading.descent:
        return [
            Finding(
                check="learning_rate",
                code="no-descent",
                severity="warn",
                where="model",
                message=f"the first update of {reading.optimizer} does not make the batch's loss smaller at any rate",
                value=0.0,
                threshold=0.0,
                why="an update along which the loss falls has a positive critical learning rate",
                consequence="The first steps of the run do not reduce the loss, whatever the learning rate.",
                advice="Look for gradients that are zero, noise or not finite, and for a weight decay above them.",
            )
        ]
    known = f"eta_c = {critical:.2g} (critical sharpness {reading.sharpness:.2g})"
    if math.isinf(critical):
        known = "no rate that was tried makes the batch's loss larger after one step"
    if lr is None or lr <= critical * (1 + ACCURACY):
        plan = (
            "" if lr is None else f"; the planned lr={lr:g} is not above" if math.isfinite(critical) else f"; lr={lr:g}"
        )
        message = f"first update of {reading.optimizer}: {known}{plan}"
        return _passed("critical", message, lr, seen=critical, below=critical)
    far = lr > FAR * critical
    return [
        Finding(
            check="learning_rate",
            code="critical",
            severity="warn",
            where="model",
            message=f"the planned lr={lr:g} is {lr / critical:.2g} times what the first update tolerates, {known}",
            value=lr,
            threshold=critical,
            why=f"more than {FAR:g} times: the room that Adam's momentum gives at beta1 = 0.9 is used up as well"
            if far
            else "eta_c is the rate from which one step along the first update makes the same batch's loss larger",
            consequence="Only a warm-up to where the loss is much flatter makes this rate possible; expect spikes."
            if far
            else "The first update at the full rate would make the loss larger.",
            advice=f"Warm up from at most {critical:.2g}"
            + (f", slowly, or plan a rate below {FAR * critical:.2g}." if far else "."),
        )
    ]


def _range_test(reading: LearningRateReading) -> list[Finding]:
    lr, limit, lrs = reading.lr, reading.range_limit, reading.range_lrs
    if not lrs:
        return []
    if limit is None:
        beyond = lr is not None and lr > lrs[-1]
        tail = f"; it does not reach the planned lr={lr:g}" if beyond else ""
        message = f"the range test of {counted(len(lrs), 'step')} went up to {lrs[-1]:.2g} without a blow-up{tail}"
        return _passed("range", message, lr)
    seen = f"the loss blew up at {limit:.2g} in a range test of {counted(len(lrs), 'step')}"
    if lr is None or lr <= limit / GRID:
        plan = "" if lr is None else f"; the planned lr={lr:g} is well below"
        return _passed("range", seen + plan, lr, seen=limit, below=limit / GRID)
    above = lr >= limit
    return [
        Finding(
            check="learning_rate",
            code="range",
            severity="fail" if above else "warn",
            where="model",
            message=f"{seen}; the planned lr={lr:g} is {'not below' if above else 'close below'}",
            value=lr,
            threshold=limit if above else limit / GRID,
            why="the loss was seen to blow up at this rate, after a warm-up through all the smaller ones"
            if above
            else "a short test sees only what blows up at once; one grid step (a factor sqrt 10) is kept to it",
            consequence="The run is likely to blow up before its warm-up ends."
            if above
            else "A long run may not survive a rate that a short one just survives.",
            advice=f"Plan a rate of at most {limit / GRID:.2g}, or a technique that raises the largest stable rate.",
        )
    ]


def _rise(reading: LearningRateReading) -> list[Finding]:
    lr, rise = reading.lr, reading.range_rise
    if rise is None:
        return []
    seen = f"from {rise:.2g} on the averaged loss of the range test rises"
    if lr is None or lr < rise:
        plan = "" if lr is None else f"; the planned lr={lr:g} is below"
        return _passed("rise", seen + plan, lr, seen=rise, below=rise)
    return [
        Finding(
            check="learning_rate",
            code="rise",
            severity="warn",
            where="model",
            message=f"{seen}; the planned lr={lr:g} is not below",
            value=lr,
            threshold=rise,
            why="where a range test's averaged loss rose by 0.2 nats went with the best rate of 24 small models "
            "(rank correlation 0.8), which was 4 to 8 times lower",
            consequence="At this rate the model is likely to learn less than at a smaller one, or nothing.",
            advice=f"Try rates around {rise / BELOW:.1g}.",
        )
    ]


def _passed(
    code: str, message: str, lr: float | None, *, seen: float | None = None, below: float | None = None
) -> list[Finding]:
    """Nothing to complain of; the value is the planned rate, or what was seen where none is planned."""
    return [
        Finding(
            check="learning_rate",
            code=code,
            severity="pass",
            where="model",
            message=message,
            value=seen if lr is None else lr,
            threshold=None if lr is None else below,
        )
    ]
