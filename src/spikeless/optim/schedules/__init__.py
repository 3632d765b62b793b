"""Learning-rate schedules, one file each: pure functions of the step."""

import abc
from dataclasses import dataclass
from typing import Protocol

from spikeless.errors import UserError

__all__ = ["Schedule", "Warmup", "largest_factor"]


class Schedule(Protocol):
    """Describes the learning rate over a run."""

    def factor(self, step: int, steps: int) -> float:
        """Learning rate of the 0-based `step` of `steps` as a share of the peak."""
        ...


def largest_factor(schedule: Schedule, steps: int) -> float:
    """The highest learning rate that a run of `steps` reaches, as a share of the peak; below 1 in a cut warm-up."""
    largest = 0.0
    for step in range(steps):
        largest = max(largest, schedule.factor(step, steps))
        if largest >= 1:
            break
    return largest


@dataclass(frozen=True, kw_only=True)
class Warmup(abc.ABC):
    """What all schedules share: a linear rise over the first steps and a floor at the end.

    Attributes:
        warmup_steps: steps of linear warm-up; the first step already moves.
        final: learning rate at the end as a share of the peak.
    """

    warmup_steps: int = 100
    final: float = 0.1

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise UserError(f"schedule.warmup_steps={self.warmup_steps} is out of range; use 0 or more")
        if not 0 <= self.final <= 1:
            raise UserError(f"schedule.final={self.final} is out of range; use 0 to 1")

    def factor(self, step: int, steps: int) -> float:
        """Learning rate of the 0-based `step` of `steps` as a share of the peak."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, steps - 1 - self.warmup_steps)
        return self.after_warmup(min(1.0, progress))

    @abc.abstractmethod
    def after_warmup(self, progress: float) -> float:
        """The factor at `progress` from 0 (end of warm-up) to 1 (last step)."""
