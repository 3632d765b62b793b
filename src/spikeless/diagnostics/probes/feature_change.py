"""How far one unit of learning rate moves the features: the coordinate check of muP, along a given update."""

from collections.abc import Mapping
from contextlib import suppress

import torch
from torch import Tensor
from torch.nn import Parameter

from spikeless.diagnostics.anatomy import Anatomy
from spikeless.diagnostics.anatomy.blocks import watch_blocks
from spikeless.diagnostics.anatomy.language_model import ProbeError
from spikeless.diagnostics.probes._weights import restored

__all__ = ["feature_change"]

AIM = 0.01  # relative change at which it is read: in the linear regime, far above rounding
FIRST = 1e-6
TRIES = 8
WITHIN = 3.0  # of the aim


class _Enough(ProbeError):
    """The last block has been seen."""


@torch.no_grad()
def feature_change(
    anatomy: Anatomy, ids: Tensor, parameters: Mapping[str, Parameter], update: Mapping[str, Tensor]
) -> float | None:
    """RMS over tokens of ||z(theta - eta Delta) - z(theta)|| / (eta sqrt(D)), for a small eta [1/learning rate].

    z is the last block's output, centred and divided by its std, token by token, as a final norm hands it to the head.
    eta is chosen so that z moves by about one per cent, where the change is proportional to it: unlike the place at
    which a loss curve crosses its start, it has no second mode and little noise.

    Args:
        anatomy: of the model, in evaluation mode; its weights are put back.
        ids: token ids [B, T].
        parameters: by name.
        update: Delta, what one unit of learning rate subtracts from each.

    Reference: the coordinate check of Yang et al. 2022 (muP), read along Adam's first update; our definition.
    """
    if not anatomy.paths:
        return None
    before = _features(anatomy, ids)
    eta, change = FIRST, 0.0
    with restored(list(parameters.values())) as saved:
        for _ in range(TRIES):
            for (name, parameter), value in zip(parameters.items(), saved, strict=True):
                torch.add(value, update[name].to(value), alpha=-eta, out=parameter)
            change = float((_features(anatomy, ids) - before).square().mean().sqrt())
            if not change < torch.inf or AIM / WITHIN <= change <= AIM * WITHIN:
                break
            eta *= min(1e3, max(1e-3, AIM / change)) if change > 0 else 1e3
    return change / eta


def _features(anatomy: Anatomy, ids: Tensor) -> Tensor:
    """The last block's output, normalised [tokens, D]."""
    found: list[Tensor] = []
    last = len(anatomy.paths) - 1

    def leave(index: int, stream: Tensor) -> None:
        if index == last:
            rows = stream.flatten(0, -2)
            rows = rows.float() if rows.dtype.itemsize < 4 else rows
            rows = rows - rows.mean(1, keepdim=True)
            found.append(rows / rows.std(1, correction=0, keepdim=True))
            raise _Enough  # the head costs as much as many blocks

    with watch_blocks(anatomy.lm.model, anatomy.paths, lambda *_: None, leave):
        for sequence in ids.split(1):
            with suppress(_Enough):
                anatomy.lm.logits(sequence)
    return torch.cat(found)
