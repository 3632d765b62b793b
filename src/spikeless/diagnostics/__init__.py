"""Diagnostics: one quantity per file, each a pure function of a snapshot that returns device scalars.

They know neither our models nor our loop, so they serve any `nn.Module` and any training loop. Nothing here
waits for the device: no `.item()`, no collective.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor
from torch.nn import Parameter

__all__ = [
    "Diagnostic",
    "Snapshot",
    "before_step",
    "is_before_step",
    "needs_moments",
    "needs_previous",
    "with_moments",
    "with_previous",
]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a diagnostic may look at, after an optimizer step, or before it if it says so.

    Attributes:
        embedding: the input embedding's table [V, D].
        transform: what a row goes through on its way into the residual stream: a multiplier or a function.
        positions: vectors added to it [T, D], if any.
        parameters: all parameters by name.
        moments: Adam's state of each parameter, by name: `exp_avg`, `exp_avg_sq`; empty where the optimizer keeps none.
        step: steps that the moments have seen, a number since Adam's own may be on the device.
        betas: the decay rates of these moments.
        group_of: the group under which a parameter is reported, from its name.
        micro_batches: closures, each the loss of one of M equal parts of the step's batch.
        streams: the residual stream [B, T, D] of one micro-batch, before the first block and after each.
        previous: the parameters before the step, by name; for those diagnostics that ask for them.
        at_start: this run's readings before its first step.
    """

    embedding: Tensor
    transform: float | Callable[[Tensor], Tensor] = 1.0
    positions: Tensor | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    moments: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    step: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    group_of: Callable[[str], str] = str
    micro_batches: Sequence[Callable[[], Tensor]] = ()
    streams: Callable[[], Iterable[Tensor]] = tuple
    previous: Mapping[str, Tensor] = field(default_factory=dict)
    at_start: Mapping[str, float] = field(default_factory=dict)


class Diagnostic(Protocol):
    """A function of a snapshot."""

    def __call__(self, snapshot: Snapshot) -> dict[str, Tensor]:
        """Readings by key, scalars on the device."""
        ...


def before_step(diagnostic: Diagnostic) -> Diagnostic:
    """Mark a diagnostic that is about the parameters which a step starts from."""
    vars(diagnostic)["before_step"] = True
    return diagnostic


def is_before_step(diagnostic: Diagnostic) -> bool:
    """True if a diagnostic is to be read before the optimizer's step."""
    return vars(diagnostic).get("before_step", False)


def with_previous(diagnostic: Diagnostic) -> Diagnostic:
    """Mark a diagnostic that compares the parameters with those before the step; a copy of them is kept for it."""
    vars(diagnostic)["with_previous"] = True
    return diagnostic


def needs_previous(diagnostic: Diagnostic) -> bool:
    """True if a diagnostic is to be given the parameters before the step."""
    return vars(diagnostic).get("with_previous", False)


def with_moments(diagnostic: Diagnostic) -> Diagnostic:
    """Mark a diagnostic that has no readings where the optimizer keeps no moments of Adam's; the loop says so once."""
    vars(diagnostic)["with_moments"] = True
    return diagnostic


def needs_moments(diagnostic: Diagnostic) -> bool:
    """True if a diagnostic has no readings without Adam's moments."""
    return vars(diagnostic).get("with_moments", False)
