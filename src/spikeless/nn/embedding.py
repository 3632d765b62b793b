"""Token embedding: a table of vectors and what happens to them on the way into the residual stream."""

from dataclasses import dataclass
from typing import Protocol

import torch

from spikeless.config import slot
from spikeless.errors import UserError
from spikeless.nn.norm import Norm
from spikeless.shapes import Hidden, Rows, Tokens

__all__ = ["Embedding", "TokenEmbedding"]


class Embedding(Protocol):
    """Describes a token embedding whose module has `weight` [V, D] and `transform`."""

    def build(self, vocab_size: int, width: int) -> "TokenEmbeddingModule":
        """The module."""
        ...


@dataclass(frozen=True, kw_only=True)
class TokenEmbedding:
    """e -> norm(multiplier * (stop_gradient(e) + share * (e - stop_gradient(e)))).

    Attributes:
        multiplier: factor in the forward pass [dimensionless].
        gradient_share: share of the gradient that reaches the table [dimensionless, 0 to 1].
        norm: norm after the multiplier, or None.
    """

    multiplier: float = 1.0
    gradient_share: float = 1.0
    norm: Norm | None = slot(None, room="nn.norm")

    def __post_init__(self) -> None:
        if not 0.0 <= self.gradient_share <= 1.0:
            raise UserError(f"embedding.gradient_share={self.gradient_share} is out of range; use 0 to 1")

    def build(self, vocab_size: int, width: int) -> "TokenEmbeddingModule":
        """The module."""
        return TokenEmbeddingModule(self, vocab_size, width)


class TokenEmbeddingModule(torch.nn.Module):
    """Looks tokens up and transforms their vectors."""

    def __init__(self, config: TokenEmbedding, vocab_size: int, width: int) -> None:
        super().__init__()
        self.multiplier, self.gradient_share = config.multiplier, config.gradient_share
        self.weight = torch.nn.Parameter(torch.empty(vocab_size, width))
        self.norm = config.norm.build(width) if config.norm else None

    def forward(self, tokens: Tokens) -> Hidden:
        """The vectors that enter the residual stream, before positions."""
        return self.transform(torch.nn.functional.embedding(tokens, self.weight))

    def transform(self, rows: Rows) -> Rows:
        """What happens to looked-up vectors [..., D]."""
        if self.gradient_share != 1.0:
            fixed = rows.detach()
            rows = fixed + self.gradient_share * (rows - fixed)  # forward it is the row itself, to the last bit
        if self.multiplier != 1.0:
            rows = rows * self.multiplier
        return rows if self.norm is None else self.norm(rows)

    @property
    def rescales_only(self) -> bool:
        """True if the transform is a plain multiple of the table's row."""
        return self.norm is None
