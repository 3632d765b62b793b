"""Linear decay after warm-up."""

from dataclasses import dataclass

from spikeless.optim.schedules import Warmup

__all__ = ["Linear"]


@dataclass(frozen=True, kw_only=True)
class Linear(Warmup):
    """A straight line from the peak to `final`."""

    def after_warmup(self, progress: float) -> float:
        """The factor at `progress` from 0 (end of warm-up) to 1 (last step)."""
        return 1 + (self.final - 1) * progress
