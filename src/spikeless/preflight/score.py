"""One number per model: how far its first update moves the features."""

import math

from spikeless.preflight.measurements import Measurements

__all__ = ["score"]


def score(measured: Measurements) -> float | None:
    """log10 of the feature change per unit of learning rate [decades].

    The feature change is how far AdamW's first update moves the last block's normalised output, relative to its
    size, per unit of learning rate. So 10^-score is the learning rate at which one step, were everything linear, would
    replace the features altogether. Every weight counts, through all Jacobians behind it: what makes sub-layers large
    against the shortcut (arXiv 2312.16903) makes it larger, and so do width and depth. It is read where the change is
    proportional to the rate, so that, unlike the critical learning rate, it has little noise.

    None where it was not measured (--theory-only, a loss that is not finite) or is not a positive number.

    It was meant to order models by their largest stable learning rate, and was tested: over 24 small models
    it does not (rank correlation 0.0 and 0.2 in two halves; docs/results, "audit-prediction"). It goes with the loss
    that they reach. For a learning rate use the range test: `LearningRateRange.rise`.
    """
    found = None if measured.learning_rate is None else measured.learning_rate.feature_change
    return math.log10(found) if found is not None and 0 < found < math.inf else None
