"""Xavier initialisation (Glorot & Bengio 2010), its normal form."""

import math
from dataclasses import dataclass

from spikeless.roles import Role

__all__ = ["XavierInit"]


@dataclass(frozen=True, kw_only=True)
class XavierInit:
    """N(0, 2/(d_in + d_out)) for every matrix, embeddings too, no depth scaling."""

    def std(self, role: Role, d_out: int, d_in: int, *, width: int, num_layers: int) -> float:
        """Standard deviation of the entries of a matrix [d_out, d_in]."""
        return math.sqrt(2 / (d_in + d_out))
