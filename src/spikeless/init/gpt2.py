"""GPT-2's initialisation (Radford et al. 2019)."""

import math
from dataclasses import dataclass

from spikeless.roles import Role

__all__ = ["GPT2Init"]


@dataclass(frozen=True, kw_only=True)
class GPT2Init:
    """N(0, 0.02^2); matrices that write to the residual stream divided by sqrt(2 L)."""

    scale: float = 0.02

    def std(self, role: Role, d_out: int, d_in: int, *, width: int, num_layers: int) -> float:
        """Standard deviation of the entries of a matrix [d_out, d_in]."""
        return self.scale / math.sqrt(2 * num_layers) if role.writes_residual else self.scale
