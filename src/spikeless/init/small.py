"""Small init (Nguyen & Salazar 2019) with depth scaling: "Vanilla" in Spike No More (arXiv 2312.16903)."""

import math
from dataclasses import dataclass

from spikeless.roles import Role

__all__ = ["SmallInit"]


@dataclass(frozen=True, kw_only=True)
class SmallInit:
    """N(0, 2/(5 D)), embeddings too; matrices that write to the residual stream times sqrt(1/(2 L))."""

    def std(self, role: Role, d_out: int, d_in: int, *, width: int, num_layers: int) -> float:
        """Standard deviation of the entries of a matrix [d_out, d_in]."""
        small = math.sqrt(2 / (5 * width))
        return small * math.sqrt(1 / (2 * num_layers)) if role.writes_residual else small
