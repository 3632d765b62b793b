"""A short learning-rate range test: train while the rate grows, and see where the loss leaves."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter

from spikeless.diagnostics.probes._weights import restored, same_random_numbers
from spikeless.errors import UserError

__all__ = ["learning_rate_range"]

MARGIN = 1.0
RISE = 0.2
MEMORY = 0.6


@dataclass(frozen=True, kw_only=True)
class LearningRateRange:
    """The answer of `learning_rate_range`.

    Attributes:
        lrs: one per update that was made, rising.
        losses: each seen right after the update with that learning rate, by the next batch [nats/token].
        first_loss: before any update.
        limit: the learning rate of the last update before the loss left; None if it did not.
    """

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    first_loss: float
    limit: float | None

    def rise(self, margin: float = RISE, memory: float = MEMORY) -> float | None:
        """The first learning rate that raises the averaged loss by more than `margin` above its least so far.

        It is the limit where the loss left before its average rose, and None where neither did. The average is
        exponential. Of 24 small models the best rate of a grid was 4 to 8 times smaller (medians of two halves), with a
        rank correlation of 0.8 in both: docs/results, "audit-prediction". Margin and memory were chosen on one half.

        Args:
            margin: how far above the least average is a rise [nats].
            memory: weight of the past in the average, 0 for none.
        """
        average, least = self.losses[0], math.inf
        for lr, loss in zip(self.lrs, self.losses, strict=True):
            average = memory * average + (1 - memory) * loss
            if not average <= least + margin:
                return lr
            least = min(least, average)
        return self.limit


def learning_rate_range(
    loss_of_step: Callable[[int], Tensor],
    parameters: Iterable[Parameter],
    make_optimizer: Callable[[list[Parameter]], torch.optim.Optimizer],
    *,
    steps: int,
    low: float,
    high: float,
    margin: float = MARGIN,
    max_norm: float | None = None,
) -> LearningRateRange:
    """The largest learning rate [per step] that `steps` updates with an exponentially growing rate survive.

    It ends when the loss is not finite or more than `margin` above the lowest loss so far. The margin is 1 nat,
    a factor e in perplexity: the mean of 1000 token losses scatters by about 0.1 nat and documents differ by a few
    tenths, so noise does not reach it, while the loss should fall. (The factor 4 of the vision recipes would be 40 nats
    at the start, far above what a broken language model shows.) The limit is generous: a rate that only harms in
    the long run is not seen, and all the smaller rates before it were a warm-up.

    Parameters come back bit for bit and gradients as the same tensors, also when the loss raises or the user
    interrupts; random generators are left as they were. Buffers are not kept. Costs a copy of the parameters,
    the optimizer's state, and `steps` training steps and one forward pass.

    Args:
        loss_of_step: the loss of a batch, with its graph; called with 0 to `steps`, one batch more than updates.
        parameters: those that train; the ones that are frozen are left out.
        make_optimizer: a fresh optimizer; the learning rate of all its groups is set before each step.
        steps: updates, from 2.
        low: the first learning rate.
        high: the last one.
        margin: how far above the lowest loss so far is too far [nats].
        max_norm: the global norm to which gradients are clipped; None for no clipping.

    Raises:
        UserError: fewer than two steps, rates that do not rise, nothing to train, or a first loss that is not finite.

    Reference: Smith, arXiv 1506.01186, the range test; pairing a rate with the loss after it and the margin are ours.
    """
    if steps < 2 or not 0 < low < high < math.inf:
        raise UserError(f"a range test of {steps} steps from {low:g} to {high:g}; use 2 steps or more and rising rates")
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise UserError("the range test has nothing to train: no parameter requires a gradient")
    gradients = [parameter.grad for parameter in trained]
    lrs: list[float] = []
    losses: list[float] = []
    limit = None
    with same_random_numbers(trained), restored(trained), torch.enable_grad():
        try:
            for parameter in trained:
                parameter.grad = None  # the old ones are kept aside, so zero_grad cannot touch them
            optimizer = make_optimizer(trained)
            loss = loss_of_step(0)
            first_loss = lowest = loss.item()
            if not math.isfinite(first_loss):
                raise UserError(f"the loss is {first_loss} before any step; a learning rate cannot be judged on it")
            for step in range(steps):
                lr = low * (high / low) ** (step / (steps - 1))
                _update(optimizer, loss, trained, lr, max_norm)
                with torch.set_grad_enabled(step + 1 < steps):
                    loss = loss_of_step(step + 1)
                lrs.append(lr)
                losses.append(loss.item())
                if not losses[-1] <= lowest + margin:
                    limit = lr
                    break
                lowest = min(lowest, losses[-1])
        finally:
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter.grad = gradient
    return LearningRateRange(lrs=tuple(lrs), losses=tuple(losses), first_loss=first_loss, limit=limit)


def _update(
    optimizer: torch.optim.Optimizer, loss: Tensor, trained: list[Parameter], lr: float, max_norm: float | None
) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if max_norm is not None:
        torch.nn.utils.clip_grad_norm_(trained, max_norm)
    optimizer.step()
