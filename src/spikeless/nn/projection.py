"""Linear maps: the dense one, and the product of two low-rank factors."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy
import torch
from torch import Tensor

from spikeless.errors import UserError

__all__ = [
    "Dense",
    "LowRank",
    "LowRankLinear",
    "Projection",
    "parity_rank",
    "product_std",
    "spectral_norm_of_gaussian",
    "spectral_norm_of_product",
]


class Projection(Protocol):
    """Describes a linear map; `build` makes a module [..., d_in] -> [..., d_out].

    A module of several tensors says with `stds(dense_std)` which standard deviation each of them gets so
    that the whole plays the part of a dense matrix whose entries have `dense_std`.
    """

    def build(self, d_in: int, d_out: int, bias: bool) -> torch.nn.Module:
        """The module; parameters are drawn later, by the run's initialisation."""
        ...


@dataclass(frozen=True, kw_only=True)
class Dense:
    """One full matrix."""

    def build(self, d_in: int, d_out: int, bias: bool) -> torch.nn.Module:
        """A `torch.nn.Linear`."""
        return torch.nn.Linear(d_in, d_out, bias=bias)


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """W = W_U W_D with W_U [d_out, r] and W_D [r, d_in]; no non-linearity between, so it merges exactly.

    Attributes:
        rank: "parity" (as many parameters as the dense matrix), a number, or a share of min(d_in, d_out).
        init: "product" keeps the entries' standard deviation, "spectral" the expected spectral norm;
            "factor" draws each factor like the dense matrix, which makes the product smaller.
    """

    rank: Literal["parity"] | int | float = "parity"
    init: Literal["product", "factor", "spectral"] = "product"

    def build(self, d_in: int, d_out: int, bias: bool) -> "LowRankLinear":
        """The pair of factors.

        Raises:
            UserError: the rank is not between 1 and min(d_in, d_out).
        """
        return LowRankLinear(d_in, d_out, self.resolve_rank(d_in, d_out), bias, self.init)

    def resolve_rank(self, d_in: int, d_out: int) -> int:
        """The rank for a matrix [d_out, d_in].

        Raises:
            UserError: out of range.
        """
        if self.rank == "parity":
            return parity_rank(d_in, d_out)
        limit = min(d_in, d_out)
        rank = self.rank if isinstance(self.rank, int) else round(float(self.rank) * limit)
        if isinstance(self.rank, bool) or not 1 <= rank <= limit:
            raise UserError(
                f"rank={self.rank!r} is out of range for a {d_out} x {d_in} projection; use 1 to {limit}, "
                "a share of it such as 0.25, or 'parity'"
            )
        return rank


def parity_rank(d_in: int, d_out: int) -> int:
    """The rank at which two factors have as many parameters as the dense matrix; d/2 for a square one."""
    return max(1, round(d_in * d_out / (d_in + d_out)))


def product_std(factor_std: float, rank: int) -> float:
    """Standard deviation of the entries of W_U W_D when both factors are iid N(0, factor_std^2)."""
    return math.sqrt(rank) * factor_std**2


def spectral_norm_of_gaussian(rows: int, columns: int) -> float:
    """Expected largest singular value of a large iid N(0, 1) matrix: sqrt(rows) + sqrt(columns)."""
    return math.sqrt(rows) + math.sqrt(columns)


def spectral_norm_of_product(rows: int, rank: int, columns: int) -> float:
    """Expected largest singular value of A B, A [rows, rank] and B [rank, columns] large and iid N(0, 1).

    The squared singular values follow the free multiplicative convolution of two Marchenko-Pastur laws.
    With a = rows/rank, b = columns/rank, their upper edge is the minimum over y > 0 of
    (1 + y)(a + y)(b + y)/y (in units of rank^2), where 2y^3 + (1 + a + b)y^2 - ab = 0.
    """
    a, b = rows / rank, columns / rank
    roots = numpy.roots([2.0, 1 + a + b, 0.0, -a * b])
    y = max(root.real for root in roots if abs(root.imag) < 1e-9)
    return rank * math.sqrt((1 + y) * (a + y) * (b + y) / y)


class LowRankLinear(torch.nn.Module):
    """x -> W_U (W_D x) + b."""

    def __init__(self, d_in: int, d_out: int, rank: int, bias: bool, init: str) -> None:
        super().__init__()
        self.d_in, self.d_out, self.rank, self.init = d_in, d_out, rank, init
        self.down = torch.nn.Linear(d_in, rank, bias=False)
        self.up = torch.nn.Linear(rank, d_out, bias=False)
        self.bias = torch.nn.Parameter(torch.empty(d_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_in] -> [..., d_out]."""
        return torch.nn.functional.linear(self.down(x), self.up.weight, self.bias)

    def merged(self) -> Tensor:
        """The dense matrix [d_out, d_in] that computes the same map: the product in float64, rounded once."""
        return (self.up.weight.double() @ self.down.weight.double()).to(self.up.weight.dtype)

    def stds(self, dense_std: float) -> dict[str, float]:
        """Standard deviation of each factor, given the dense matrix's."""
        if self.init == "factor":
            factor = dense_std
        elif self.init == "product":  # sqrt(r) f^2 = dense_std
            factor = math.sqrt(dense_std / math.sqrt(self.rank))
        else:  # f^2 ||A B|| = dense_std ||W||
            dense = spectral_norm_of_gaussian(self.d_out, self.d_in)
            product = spectral_norm_of_product(self.d_out, self.rank, self.d_in)
            factor = math.sqrt(dense_std * dense / product)
        return {"down.weight": factor, "up.weight": factor}
