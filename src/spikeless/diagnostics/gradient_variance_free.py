"""Gradient variance for free, from Adam's moments."""

from collections import defaultdict

import torch
from torch import Tensor

from spikeless.diagnostics import Snapshot, with_moments

__all__ = ["gradient_variance_free"]

FIRST_STEP = 10  # before it the bias-corrected moments say nothing about a variance


@with_moments
def gradient_variance_free(snapshot: Snapshot) -> dict[str, Tensor]:
    """v_hat - m_hat^2 with Adam's bias corrections, averaged over the parameters of each group [gradient^2].

    It is the variance over steps of the gradient that Adam saw, after clipping, and can be negative, since
    the two averages forget at different rates. Undefined before step 10, and for an optimizer that keeps no such
    moments: then there are no readings.

    Reference: our definition; keys are gradient_variance/free/GROUP.
    """
    names = list(snapshot.moments)
    if not names or snapshot.step < FIRST_STEP:
        return {}
    (beta1, beta2), step = snapshot.betas, snapshot.step
    first_norms = torch._foreach_norm([snapshot.moments[name]["exp_avg"].float() for name in names])
    second_sums = torch._foreach_norm([snapshot.moments[name]["exp_avg_sq"].float() for name in names], 1)
    totals: dict[str, list[Tensor]] = defaultdict(list)
    sizes: dict[str, int] = defaultdict(int)
    for name, first, second in zip(names, first_norms, second_sums, strict=True):
        group = snapshot.group_of(name)
        totals[group].append(second / (1 - beta2**step) - (first / (1 - beta1**step)) ** 2)
        sizes[group] += snapshot.moments[name]["exp_avg"].numel()
    return {f"gradient_variance/free/{g}": torch.stack(each).sum() / sizes[g] for g, each in totals.items()}
