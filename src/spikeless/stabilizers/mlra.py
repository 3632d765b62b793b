"""MLRA, multi-head low-rank attention: query, key and value projections as W_U W_D.

Acts on:    query, key and value projections
Prevents:   variance that grows exponentially over depth, and with it exploding gradients
Watch:      tev/mean, grad_norm
Cost:       two smaller products instead of one; none after merging
Conflicts:  dense_scale_matched
Reference:  Chung et al., arXiv 2409.07787, section 3.2

No non-linearity stands between the factors, so the product merges into a plain model after training.
`rank` "parity" (r = D/2 for square projections) keeps the parameter count; the default `init` "product"
keeps the standard deviation of the dense projection, "factor" draws each factor like the dense matrix (the
product then starts smaller: compare with dense_scale_matched), "spectral" keeps the spectral norm.
Another paper uses this name for something else (arXiv 2603.02188, sharding of the KV cache).
"""

from dataclasses import dataclass
from typing import Literal

from spikeless.config import replace_at
from spikeless.nn.projection import LowRank
from spikeless.run import RunConfig

__all__ = ["MLRA"]


@dataclass(frozen=True, kw_only=True)
class MLRA:
    """Low-rank query, key and value projections, factorised before the head split."""

    rank: Literal["parity"] | int | float = "parity"
    init: Literal["product", "factor", "spectral"] = "product"

    def __call__(self, run: RunConfig) -> RunConfig:
        """The run with the technique applied."""
        return replace_at(run, {"model.attention.projection": LowRank(rank=self.rank, init=self.init)})
