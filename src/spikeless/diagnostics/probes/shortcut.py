"""The shortcut: how large the residual stream is where a sub-layer's norm reads it."""

from dataclasses import dataclass

from torch import Tensor

from spikeless.diagnostics.anatomy import BlockView

__all__ = ["shortcut"]


@dataclass(frozen=True, kw_only=True)
class Shortcut:
    """sigma_x over the tokens of a batch, all [dimensionless]."""

    min: float
    median: float
    mean: float


def shortcut(view: BlockView, index: int) -> Shortcut:
    """Population std over D of the vector that enters a sub-layer, per token [dimensionless].

    Condition 2 asks for it to be large: the norm behind it scales gradients by its inverse.

    Reference: Takase et al., arXiv 2312.16903, equation 14; per token and population std are our definition.
    """
    stds = token_stds(view.tensor(view.segments[index].start))
    return Shortcut(min=float(stds.min()), median=float(stds.median()), mean=float(stds.mean()))


def token_stds(stream: Tensor) -> Tensor:
    """Population std over the last dimension of every token [tokens], at least fp32."""
    rows = stream.detach().flatten(0, -2)
    rows = rows.float() if rows.dtype.itemsize < 4 else rows
    return rows.std(1, correction=0)
