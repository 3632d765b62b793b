"""Gradient variance over micro-batches: exact, and as expensive as the step itself."""

from collections import defaultdict

import torch
from torch import Tensor

from spikeless.diagnostics import Snapshot, before_step
from spikeless.errors import UserError

__all__ = ["gradient_variance_exact"]

FEWEST = 4


@before_step
def gradient_variance_exact(snapshot: Snapshot) -> dict[str, Tensor]:
    """Variance of the step's gradient, from M >= 4 equal micro-batches, averaged per group [gradient^2].

    Per parameter the unbiased variance of the M micro-batch mean gradients, divided by M. It costs M
    forward and backward passes and two copies of the parameters; gradients are left as they were.

    Raises:
        UserError: fewer than four micro-batches.

    Reference: our definition (how arXiv 2409.07787 computed it is open); keys are gradient_variance/exact/GROUP, and
    gradient_variance/exact/all for all parameters together.
    """
    count = len(snapshot.micro_batches)
    if count < FEWEST:
        raise UserError(
            f"the exact gradient variance needs at least {FEWEST} equal micro-batches, not {count}; "
            f"use a data.batch_size divisible by {FEWEST}"
        )
    names, parameters = list(snapshot.parameters), list(snapshot.parameters.values())
    means = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in parameters]
    squares = [torch.zeros_like(mean) for mean in means]
    for number, loss in enumerate(snapshot.micro_batches, start=1):  # Welford 1962
        gradients = [each.float() for each in torch.autograd.grad(loss(), parameters)]
        before = torch._foreach_sub(gradients, means)
        torch._foreach_add_(means, before, alpha=1 / number)
        torch._foreach_addcmul_(squares, before, torch._foreach_sub(gradients, means))
    totals: dict[str, list[Tensor]] = defaultdict(list)
    sizes: dict[str, int] = defaultdict(int)
    for name, square in zip(names, squares, strict=True):
        totals[snapshot.group_of(name)].append(square.sum())
        sizes[snapshot.group_of(name)] += square.numel()
    scale = 1 / ((count - 1) * count)
    sums = {group: torch.stack(each).sum() * scale for group, each in totals.items()}
    readings = {f"gradient_variance/exact/{group}": total / sizes[group] for group, total in sums.items()}
    return readings | {"gradient_variance/exact/all": torch.stack(list(sums.values())).sum() / sum(sizes.values())}
