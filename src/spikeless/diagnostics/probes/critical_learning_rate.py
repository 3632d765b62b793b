"""The learning rate from which one step along a given direction makes the loss larger."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter

from spikeless.diagnostics.probes._weights import restored, same_random_numbers
from spikeless.errors import UserError

__all__ = ["critical_learning_rate"]

DOUBLINGS = 20  # a factor of a million either way
PRECISION = 1 / 16


@dataclass(frozen=True, kw_only=True)
class CriticalLearningRate:
    """The answer of `critical_learning_rate`.

    Attributes:
        critical: eta_c, the middle of the bracket; infinite if no increase was found, 0 if not `descent`.
        descent: False if the update is no descent direction, or if no step along it makes the loss smaller.
        bracket: the largest rate tried that gave no increase, and the smallest that gave one.
        loss: on the batch, before any step.
        evaluations: of the loss.
    """

    critical: float
    descent: bool
    bracket: tuple[float, float]
    loss: float
    evaluations: int

    @property
    def sharpness(self) -> float:
        """2 / eta_c, critical sharpness: infinite for no descent direction, 0 if no increase was found."""
        return 2 / self.critical if self.critical else math.inf


def critical_learning_rate(
    loss: Callable[[], Tensor | float],
    parameters: Mapping[str, Parameter],
    update: Mapping[str, Tensor],
    *,
    start: float = 1e-3,
    gradients: Mapping[str, Tensor] | None = None,
) -> CriticalLearningRate:
    """eta_c = min{eta: L(theta - eta Delta) > L(theta)} [learning rate], by forward passes alone.

    The rate is doubled or halved from `start` until the loss changes sides, then bisected until
    1 - low/high <= 1/16. So it is the first crossing on that grid; between grid points the loss is taken as
    smooth. A loss that is not finite counts as an increase. At most 20 doublings or halvings are tried: no
    increase up to X leaves the bracket (X, inf). On a quadratic loss eta_c = 2 Delta.g / (Delta.H Delta).

    Weights are put back bit for bit, also when the loss raises or the user interrupts. Every evaluation starts
    from the same random numbers, and the generators are left as they were. Modules must be in eval mode: with
    dropout the loss is another function. No graph through the parameters may be waiting for its backward pass.
    Costs one copy of the parameters and usually 6 to 10 evaluations.

    Args:
        loss: of one batch, the same at every call; called without gradients.
        parameters: those that move, by name; others may be there.
        update: Delta, the step per unit of learning rate: theta becomes theta - eta Delta.
        start: the first rate that is tried.
        gradients: of the loss; with them Delta.g <= 0 is told at once, else by halving in vain.

    Raises:
        UserError: the update does not fit the parameters, or the loss is not finite before any step.

    Reference: Kalra et al., arXiv 2601.16979 (facebookresearch/scalable-curvature). Not finite as an increase,
        restoring from copies and the state "no descent direction" are ours.
    """
    moved, steps = _matched(parameters, update)
    if not (start > 0 and math.isfinite(start)):
        raise UserError(f"the first learning rate to try is {start}; use a positive number")
    evaluations = 0

    def now() -> float:
        nonlocal evaluations
        evaluations += 1
        with torch.no_grad(), same_random_numbers(moved):
            return float(loss())

    at_start = now()
    if not math.isfinite(at_start):
        raise UserError(f"the loss is {at_start} before any step; a learning rate cannot be judged on it")
    if gradients is not None and not _slope(update, gradients) > 0:
        return CriticalLearningRate(
            critical=0.0, descent=False, bracket=(0.0, 0.0), loss=at_start, evaluations=evaluations
        )
    with restored(moved) as saved:

        def after(rate: float) -> float:
            with torch.no_grad():
                for parameter, value, step in zip(moved, saved, steps, strict=True):
                    torch.add(value, step, alpha=-rate, out=parameter)
            value = now()
            return value if math.isfinite(value) else math.inf

        low, high = _bracket(after, at_start, start)
        while low > 0 and high < math.inf and 1 - low / high > PRECISION:
            middle = (low + high) / 2
            low, high = (low, middle) if after(middle) > at_start else (middle, high)
    critical = (low + high) / 2 if low else 0.0
    return CriticalLearningRate(
        critical=critical, descent=low > 0, bracket=(low, high), loss=at_start, evaluations=evaluations
    )


def _bracket(after: Callable[[float], float], at_start: float, rate: float) -> tuple[float, float]:
    """Neighbours on the doubling grid with no increase at the lower, one at the upper; 0 or infinite if not found."""
    if after(rate) > at_start:
        for _ in range(DOUBLINGS):
            rate /= 2
            if after(rate) < at_start:  # an equal loss is a step below the resolution of the weights
                return rate, 2 * rate
        return 0.0, rate
    for _ in range(DOUBLINGS):
        rate *= 2
        if after(rate) > at_start:
            return rate / 2, rate
    return rate, math.inf


def _slope(update: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> float:
    """Delta.g, summed in fp64: how fast the loss falls along the update."""
    shared = [name for name in update if name in gradients]
    with torch.no_grad():
        return math.fsum(float((update[name] * gradients[name]).sum(dtype=torch.float64)) for name in shared)


def _matched(parameters: Mapping[str, Parameter], update: Mapping[str, Tensor]) -> tuple[list[Parameter], list[Tensor]]:
    """The parameters that move and their steps."""
    if not update:
        raise UserError("the update is empty; no parameter has a gradient")
    for name, step in update.items():
        if name not in parameters:
            raise UserError(f"the update has {name!r}, which is no parameter")
        if step.shape != parameters[name].shape:
            raise UserError(
                f"the update of {name!r} has shape {tuple(step.shape)}, the parameter {tuple(parameters[name].shape)}"
            )
    return [parameters[name] for name in update], list(update.values())
