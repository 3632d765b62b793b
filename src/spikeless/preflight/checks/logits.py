"""The head's logits, and the loss against that of a uniform guess."""

import math

from spikeless.preflight.findings import Finding
from spikeless.preflight.measurements import LogitsReading, Measurements

__all__ = ["logits"]

NOTICEABLE = 1.0
BROKEN = 5.0
COARSE = 128.0


def logits(measured: Measurements) -> list[Finding]:
    """Judges the loss against ln V [nats/token] and the size of the logits.

    An initial model knows nothing, so its loss should be ln V. Gaussian logits of standard deviation s give
    ln V + s^2/2 on average: 1 nat more is s = 1.4, where the head's draw already outweighs what the first
    steps can learn; 5 nats more is s = 3.2, and a tied head that nobody initialised gives a loss beyond 500. An
    initial loss clearly below ln V means that the targets are in the inputs. A trained model that is 1 nat worse
    than a uniform guess is none, or reads other tokens than it was trained on. Above 128 two neighbours in
    bf16 are 1 apart: probabilities that differ by a factor e become equal.

    Reference: expectation of a log-normal sum for s^2/2; pytorch/torchtitan#2342 for the loss beyond 500; Chowdhery et
        al., arXiv 2204.02311 (z-loss). The thresholds are ours.
    """
    reading = measured.logits
    if reading is None:
        return []
    if not all(math.isfinite(each) for each in (reading.std, reading.max_abs, reading.log_sum_exp, reading.loss)):
        return [_not_finite(reading)]
    found = _initial(reading) if measured.model.state == "initial" else _trained(reading)
    problems = [each for each in (found, _size(reading)) if each is not None]
    return problems or [
        Finding(
            check="logits",
            code="loss",
            severity="pass",
            where="head",
            message=f"the {measured.model.state} loss is {_numbers(reading)}",
            value=reading.loss,
            threshold=reading.ln_vocab + NOTICEABLE,
        )
    ]


def _numbers(reading: LogitsReading) -> str:
    return (
        f"{reading.loss:.4g} nats against ln V = {reading.ln_vocab:.4g}; "
        f"logit std {reading.std:.2g}, max |logit| {reading.max_abs:.3g}, log-sum-exp {reading.log_sum_exp:.4g}"
    )


def _not_finite(reading: LogitsReading) -> Finding:
    return Finding(
        check="logits",
        code="not-finite",
        severity="fail",
        where="head",
        message=f"the loss is {_numbers(reading)}",
        value=reading.loss,
        why="every number has to be finite",
        consequence="One step on this writes NaN into every weight.",
        advice="Find the first layer that is not finite: its weights, a division by zero, an overflow of fp16.",
    )


def _initial(reading: LogitsReading) -> Finding | None:
    excess = reading.loss - reading.ln_vocab
    if abs(excess) <= NOTICEABLE:
        return None
    if excess < 0:
        return Finding(
            check="logits",
            code="initial-loss-low",
            severity="warn",
            where="head",
            message=f"the initial loss is {_numbers(reading)}: {-excess:.2g} nats too low",
            value=reading.loss,
            threshold=reading.ln_vocab - NOTICEABLE,
            why="without training no model can be better than ln V on average; 1 nat is more than a batch scatters",
            consequence="If targets leak into the inputs, the run learns to copy them and nothing else.",
            advice="Check that targets are shifted by one, that attention is causal, and that weights are initial.",
        )
    broken = excess > BROKEN
    threshold = BROKEN if broken else NOTICEABLE
    return Finding(
        check="logits",
        code="initial-loss",
        severity="fail" if broken else "warn",
        where="head",
        message=f"the initial loss is {_numbers(reading)}: {excess:.2g} nats too high",
        value=reading.loss,
        threshold=reading.ln_vocab + threshold,
        why=f"random logits of std s cost s^2/2 nats; {threshold:g} over ln V means s = {math.sqrt(2 * threshold):.2g}",
        consequence="The first steps have large gradients and are spent on shrinking the head's random logits.",
        advice="Check that the head, tied or not, is initialised, and scale it so that the logits' std is below 1.",
    )


def _trained(reading: LogitsReading) -> Finding | None:
    if reading.loss <= reading.ln_vocab + NOTICEABLE:
        return None
    return Finding(
        check="logits",
        code="worse-than-uniform",
        severity="warn",
        where="head",
        message=f"the trained model's loss is {_numbers(reading)}: worse than a uniform guess",
        value=reading.loss,
        threshold=reading.ln_vocab + NOTICEABLE,
        why="guessing all tokens alike costs ln V; 1 nat more is left for data of another kind",
        consequence="The weights are damaged or not loaded, or the tokens are not those of this model.",
        advice="Check that all weights were loaded and that the data was made with this model's tokenizer.",
    )


def _size(reading: LogitsReading) -> Finding | None:
    if reading.max_abs <= COARSE:
        return None
    drift = reading.log_sum_exp - reading.ln_vocab
    shifted = abs(drift) > reading.max_abs / 2
    return Finding(
        check="logits",
        code="logits-large",
        severity="warn",
        where="head",
        message=f"max |logit| is {reading.max_abs:.3g}, std {reading.std:.2g}, log-sum-exp {drift:+.3g} from ln V",
        value=reading.max_abs,
        threshold=COARSE,
        why="above 128 the spacing of bf16 is 1, so a factor e between two probabilities is lost",
        consequence="In bf16 loss and gradients become coarse, and the logits' growth is a known road to divergence.",
        advice="The logits share a drift that the loss does not see: a z-loss holds it; keep the head in fp32."
        if shifted
        else "Scale the head or the final norm down, soft-cap the logits, or use a z-loss; keep the head in fp32.",
    )
