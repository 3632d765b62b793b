"""Cosine decay after warm-up (Loshchilov & Hutter 2017)."""

import math
from dataclasses import dataclass

from spikeless.optim.schedules import Warmup

__all__ = ["Cosine"]


@dataclass(frozen=True, kw_only=True)
class Cosine(Warmup):
    """Half a cosine from the peak to `final`."""

    def after_warmup(self, progress: float) -> float:
        """The factor at `progress` from 0 (end of warm-up) to 1 (last step)."""
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2
