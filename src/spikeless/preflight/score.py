"""One number per model: how small its largest stable learning rate is expected to be."""

import math

from spikeless.preflight.measurements import Measurements

__all__ = ["score"]


def score(measured: Measurements) -> float | None:
    """-log10(eta_c): larger means a smaller largest stable learning rate [decades].

    eta_c is the learning rate from which AdamW's first update makes the loss of the batch larger, measured along that
    update (critical sharpness is 2 / eta_c). It sees what the two papers' conditions are about - how strongly the
    output reacts to a change of every weight, through all Jacobians at once - in the units of a learning rate, for any
    depth, width, initialisation, embedding and family. None where it was not measured: with --theory-only, for a loss
    that is not finite, and where the update is no descent direction or no rate up to the limit makes the loss larger.

    It was defined before any of its predictions was measured; `spikeless compare` is what puts it to the test.
    """
    found = measured.learning_rate
    if found is None or not found.descent or not 0 < found.critical < math.inf:
        return None
    return -math.log10(found.critical)
