"""The main numbers of an audit, one per model, by which two audits are compared."""

import math
from collections.abc import Callable

from spikeless.preflight.measurements import Measurements

__all__ = ["QUANTITIES"]

Read = Callable[[Measurements], float | None]


def _largest(key: str) -> Read:
    def read(measured: Measurements) -> float | None:
        values = [getattr(each, key) for layer in measured.layers for each in layer.sub_layers]
        return max((v for v in values if v is not None), key=lambda v: math.inf if math.isnan(v) else v, default=None)

    return read


QUANTITIES: dict[str, tuple[str, Read]] = {
    "tev": ("TEV, raw μ", lambda m: m.tev and m.tev.mean),
    "tev_effective": ("TEV, effective μ", lambda m: m.tev and m.tev.effective_mean),
    "first_layer_ffn_gain": ("first-layer FFN gain, predicted", lambda m: m.theory and m.theory.first_layer_ffn_gain),
    "largest_estimate": ("largest estimate of a Jacobian", _largest("estimate")),
    "largest_bound": ("largest bound of a Jacobian", _largest("bound")),
    "largest_measured": ("largest measured Jacobian", _largest("measured")),
    "gradient_ratio": (
        "gradient norm, first layer / last",
        lambda m: m.gradient_growth and (1 / m.gradient_growth.ratio if m.gradient_growth.ratio else math.inf),
    ),
    "residual_ratio": (
        "residual variance, last layer / first",
        lambda m: m.residual_growth and m.residual_growth.ratio,
    ),
    "logits_std": ("logits, std", lambda m: m.logits and m.logits.std),
    "loss": ("loss [nats/token]", lambda m: m.logits and m.logits.loss),
    "critical_lr": ("critical learning rate", lambda m: m.learning_rate and m.learning_rate.critical),
}
