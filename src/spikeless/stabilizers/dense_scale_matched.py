"""Dense query, key and value projections that start as small as MLRA's product: its control.

Acts on:    query, key and value initialisation
Prevents:   nothing by itself: it tells how much of MLRA's gain is mere down-scaling at initialisation
Watch:      tev/mean, grad_norm
Cost:       none
Conflicts:  mlra
Reference:  our control; the scale is that of mlra(init=factor), arXiv 2409.07787

Two factors drawn with the dense standard deviation s have a product with sqrt(r) s^2.
"""

from dataclasses import dataclass
from typing import Literal

from spikeless.config import replace_at
from spikeless.nn.projection import LowRank, product_std
from spikeless.run import RunConfig

__all__ = ["DenseScaleMatched"]


@dataclass(frozen=True, kw_only=True)
class FactorProduct:
    """The standard deviation of a product of two factors that were each drawn with the scheme's."""

    rank: Literal["parity"] | int | float = "parity"

    def resolve(self, scheme_std: float, d_out: int, d_in: int) -> float:
        """sqrt(r) s^2 for a matrix [d_out, d_in]."""
        return product_std(scheme_std, LowRank(rank=self.rank).resolve_rank(d_in, d_out))


@dataclass(frozen=True, kw_only=True)
class DenseScaleMatched:
    """Dense projections with the standard deviation of the factorised ones."""

    rank: Literal["parity"] | int | float = "parity"

    def __call__(self, run: RunConfig) -> RunConfig:
        """The run with the technique applied."""
        return replace_at(
            run,
            {f"init.target_std.{role}": FactorProduct(rank=self.rank) for role in ("query", "key", "value")},
        )
