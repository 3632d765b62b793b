"""The size of a step: the norm of what the optimizer changed."""

import torch
from torch import Tensor

from spikeless.diagnostics import Snapshot, with_previous
from spikeless.stats import global_norm

__all__ = ["update_norm"]


@with_previous
def update_norm(snapshot: Snapshot) -> dict[str, Tensor]:
    """L2 norm of the change of all parameters in one step, weight decay included [dimensionless].

    Readings:
        update_norm: ||theta_t - theta_(t-1)||.
        update_ratio: the same over ||theta_(t-1)||.

    Taken from the parameters themselves, so it holds for any optimizer; before the first step there are no readings.
    """
    if not snapshot.previous:
        return {}
    before = [each.float() for each in snapshot.previous.values()]
    after = [snapshot.parameters[name].detach().float() for name in snapshot.previous]
    size = global_norm(torch._foreach_sub(after, before))
    return {"update_norm": size, "update_ratio": size / global_norm(before)}
