"""Constant learning rate after warm-up."""

from dataclasses import dataclass

from spikeless.optim.schedules import Warmup

__all__ = ["Constant"]


@dataclass(frozen=True, kw_only=True)
class Constant(Warmup):
    """The peak throughout; `final` is not used."""

    def after_warmup(self, progress: float) -> float:
        """The factor at `progress` from 0 (end of warm-up) to 1 (last step)."""
        return 1.0
