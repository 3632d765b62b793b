"""What the optimizer's first update tolerates, and a short learning-rate range test."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from spikeless.diagnostics.anatomy import Anatomy
from spikeless.diagnostics.probes.adam_first_update import adam_first_update
from spikeless.diagnostics.probes.critical_learning_rate import critical_learning_rate
from spikeless.diagnostics.probes.feature_change import feature_change
from spikeless.diagnostics.probes.learning_rate_range import learning_rate_range
from spikeless.optim.adamw import AdamW
from spikeless.preflight.measurements import LearningRateReading

__all__ = ["measure_learning_rate"]

RANGE_LRS = (1e-5, 1.0)
CLIP_NORM = 1.0
START = 1e-2  # where the search for the critical rate begins: few models are far from it


def measure_learning_rate(
    anatomy: Anatomy,
    ids: Tensor,
    gradients: Mapping[str, Tensor],
    *,
    optimizer: AdamW,
    lr: float | None,
    range_ids: Tensor | None,
) -> LearningRateReading | None:
    """The critical learning rate of AdamW's first update, how far it moves the features, and the range test.

    Args:
        anatomy: of the model, in evaluation mode; its weights are put back.
        ids: token ids [B, T + 1].
        gradients: of the mean loss of these, by name.
        optimizer: gives epsilon, betas and decay.
        lr: the planned rate, for the record.
        range_ids: of the range test, a batch for each update and one more [N + 1, B, T + 1]; None for no test.
    """
    model = anatomy.lm.model
    parameters = {name: each for name, each in model.named_parameters() if name in gradients}
    if not parameters:
        return None
    roles = anatomy.roles

    def decayed(name: str) -> bool:
        role = roles.get(name)
        return role is not None and role.is_matrix and role.value not in optimizer.undecayed

    @torch.no_grad()
    def loss() -> float:
        return _mean_loss(anatomy, ids)

    update = adam_first_update(
        gradients, parameters, eps=optimizer.eps, weight_decay=optimizer.weight_decay, decayed=decayed
    )
    found = critical_learning_rate(loss, parameters, update, gradients=gradients, start=START)
    reading = LearningRateReading(
        optimizer="AdamW",
        eps=optimizer.eps,
        lr=lr,
        critical=found.critical,
        sharpness=found.sharpness,
        descent=found.descent,
        feature_change=feature_change(anatomy, ids[:, :-1], parameters, update),
    )
    if range_ids is None:
        return reading
    del update
    low, high = RANGE_LRS
    swept = learning_rate_range(
        lambda step: _loss(anatomy, range_ids[step]),
        list(parameters.values()),
        lambda given: torch.optim.AdamW(
            given, lr=low, betas=(optimizer.beta1, optimizer.beta2), eps=optimizer.eps, weight_decay=0.0
        ),
        steps=len(range_ids) - 1,
        low=low,
        high=high,
        max_norm=CLIP_NORM,
    )
    return replace(
        reading,
        range_lrs=swept.lrs,
        range_losses=swept.losses,
        range_limit=swept.limit,
        range_rise=swept.rise(),
    )


def _mean_loss(anatomy: Anatomy, ids: Tensor) -> float:
    """Over the batch, a sequence at a time [nats/token]."""
    return float(sum(_loss(anatomy, sequence).double() for sequence in ids.split(1))) / len(ids)


def _loss(anatomy: Anatomy, ids: Tensor) -> Tensor:
    logits = anatomy.lm.logits(ids[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())
