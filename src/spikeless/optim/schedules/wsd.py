"""Warm-up, stable, decay (Hu et al. 2024, MiniCPM)."""

from dataclasses import dataclass

from spikeless.errors import UserError
from spikeless.optim.schedules import Warmup

__all__ = ["WSD"]


@dataclass(frozen=True, kw_only=True)
class WSD(Warmup):
    """The peak, then a straight line to `final` over the last share of the run.

    Attributes:
        decay_share: share of the steps after warm-up that decay.
    """

    decay_share: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.decay_share <= 1:
            raise UserError(f"schedule.decay_share={self.decay_share} is out of range; use more than 0, at most 1")

    def after_warmup(self, progress: float) -> float:
        """The factor at `progress` from 0 (end of warm-up) to 1 (last step)."""
        decayed = max(0.0, (progress - (1 - self.decay_share)) / self.decay_share)
        return 1 + (self.final - 1) * decayed
