"""Attention logits and the entropy of attention, per layer."""

import math
from collections.abc import Callable, Mapping

from spikeless.preflight.findings import Finding
from spikeless.preflight.measurements import AttentionReading, Measurements
from spikeless.words import counted

__all__ = ["attention"]

LARGE = 50.0
VERY_LARGE = 100.0
COLLAPSED = 0.05
SHARP_AT_START = 0.5


def attention(measured: Measurements) -> list[Finding]:
    """Judges the largest |logit| before the softmax, and the entropy relative to uniform attention [0, 1].

    Logits that are not finite fail. Above 50 it warns: Gemma 2 caps attention logits there, and neighbours in
    bf16 are 0.25 apart; above 100 in stronger words: QK-Clip acts from there. A layer whose heads have a mean
    relative entropy below 0.05 has collapsed; single sharp heads are healthy in trained models (a previous-token
    head), so none is judged alone. Initial attention is close to uniform: Gaussian logits of standard
    deviation s take about s^2/2 nats from ln T: at 512 keys 0.5 means s = 2.8, and 0.05 means s = 18.

    Reference: Gemma Team, arXiv 2408.00118 (soft cap 50); Kimi Team, arXiv 2507.20534 (QK-Clip, tau 100);
        Zhai et al., arXiv 2303.06296 (entropy collapse). The thresholds on the entropy are ours.
    """
    readings = {layer.index: layer.attention for layer in measured.layers if layer.attention is not None}
    if not readings:
        return []
    broken = [index for index, each in readings.items() if not _is_finite(each)]
    if broken:
        return [_not_finite(broken)]
    initial = measured.model.state == "initial"
    problems = [each for each in (_logits(readings), _entropy(readings, initial=initial)) if each is not None]
    return problems or [_well(readings)]


def _is_finite(reading: AttentionReading) -> bool:
    return math.isfinite(reading.logit_max) and math.isfinite(reading.relative_entropy)


def _where(
    readings: Mapping[int, AttentionReading], bad: Callable[[AttentionReading], bool], worst: int
) -> tuple[str, str]:
    """The place of a finding, and the same in words."""
    count = sum(bad(each) for each in readings.values())
    if count == 1:
        return f"layer {worst}", f"in layer {worst}"
    return "model", f"in {count} of {counted(len(readings), 'layer')}, worst in layer {worst}"


def _not_finite(broken: list[int]) -> Finding:
    single = len(broken) == 1
    layers = counted(1 if single else len(broken), "layer")
    return Finding(
        check="attention",
        code="not-finite",
        severity="fail",
        where=f"layer {broken[0]}" if single else "model",
        message=f"attention logits are not finite in {layers}, first in layer {broken[0]}",
        value=math.inf,
        why="every number has to be finite",
        consequence="The softmax turns one of them into NaN for a whole row, and the loss with it.",
        advice=f"Look at queries and keys of layer {broken[0]} and at what enters it: weights, overflow, a wrong mask.",
    )


def _logits(readings: Mapping[int, AttentionReading]) -> Finding | None:
    worst = max(readings, key=lambda index: readings[index].logit_max)
    value = readings[worst].logit_max
    if value <= LARGE:
        return None
    where, place = _where(readings, lambda each: each.logit_max > LARGE, worst)
    very = value > VERY_LARGE
    return Finding(
        check="attention",
        code="logit-max",
        severity="warn",
        where=where,
        message=f"the largest attention logit is {value:.3g}, above {LARGE:g} {place}",
        value=value,
        threshold=VERY_LARGE if very else LARGE,
        why="QK-Clip, made against exploding logits, acts from 100"
        if very
        else "Gemma 2 caps attention logits at 50; from 32 to 64 the spacing of bf16 is 0.25",
        consequence="The softmax picks single keys and passes hardly any gradient; such logits precede spikes."
        if very
        else "Attention becomes coarse in bf16, and logits that keep growing end in a spike.",
        advice="Normalise queries and keys (QK-norm), clip or soft-cap logits, or scale query and key weights down.",
    )


def _entropy(readings: Mapping[int, AttentionReading], *, initial: bool) -> Finding | None:
    worst = min(readings, key=lambda index: readings[index].relative_entropy)
    value, lowest = readings[worst].relative_entropy, readings[worst].lowest_head
    collapsed = value < COLLAPSED
    if not collapsed and not (initial and value < SHARP_AT_START):
        return None
    threshold = COLLAPSED if collapsed else SHARP_AT_START
    where, place = _where(readings, lambda each: each.relative_entropy < threshold, worst)
    return Finding(
        check="attention",
        code="entropy-collapse" if collapsed else "sharp-at-start",
        severity="warn",
        where=where,
        message=f"the {'initial ' if initial else ''}attention entropy is {value:.2g} of that of uniform attention "
        f"(lowest head {lowest:.2g}), below {threshold:g} {place}",
        value=value,
        threshold=threshold,
        why="this is the mean over heads: single sharp heads are healthy, a layer of nothing else has collapsed"
        if collapsed
        else "initial attention is close to uniform (1); 0.5 takes logits of std 2.8 at 512 keys",
        consequence="Each query copies one token; low attention entropy goes with an oscillating loss and divergence."
        if collapsed
        else "Queries attend to keys picked by chance, and the softmax passes little gradient to unlearn that.",
        advice="Scale query and key weights down, check the factor 1/sqrt(head width), or normalise queries and keys.",
    )


def _well(readings: Mapping[int, AttentionReading]) -> Finding:
    largest = max(each.logit_max for each in readings.values())
    lowest = min(each.relative_entropy for each in readings.values())
    return Finding(
        check="attention",
        code="attention",
        severity="pass",
        where="model",
        message=f"the largest attention logit is {largest:.3g}, the lowest relative entropy of a layer {lowest:.2g}",
        value=largest,
        threshold=LARGE,
    )
