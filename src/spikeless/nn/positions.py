"""How a model knows the order of its tokens: learned vectors, or rotation of queries and keys (RoPE)."""

import abc
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Learned", "Positions", "PositionsModule", "Rotary", "rotate"]


class Positions(Protocol):
    """Describes position information; its module adds to the embedding and gives rotation angles, or not."""

    def build(self, context_length: int, width: int, head_dim: int) -> "PositionsModule":
        """The module."""
        ...


class PositionsModule(torch.nn.Module, abc.ABC):
    """What positions [T], or [B, T] where each sequence has its own, contribute."""

    @abc.abstractmethod
    def vectors(self, positions: Tensor) -> Tensor | None:
        """Vectors [..., T, D] to add to the embedding, or None."""

    @abc.abstractmethod
    def rotation(self, positions: Tensor) -> tuple[Tensor, Tensor] | None:
        """Cosine and sine [..., 1, T, K] that turn queries and keys, or None."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A learned vector per position, added to the token embedding (GPT-2)."""

    def build(self, context_length: int, width: int, head_dim: int) -> PositionsModule:
        """The table [context_length, D]."""
        return _LearnedTable(context_length, width)


class _LearnedTable(PositionsModule):
    def __init__(self, context_length: int, width: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(context_length, width))

    def vectors(self, positions: Tensor) -> Tensor:
        return torch.nn.functional.embedding(positions, self.weight)

    def rotation(self, positions: Tensor) -> None:
        return None


@dataclass(frozen=True, kw_only=True)
class Rotary:
    """Rotary embedding (Su et al. 2021): pairs (i, i + K/2) turn by position * theta^(-2i/K) [radians]."""

    theta: float = 10_000.0

    def build(self, context_length: int, width: int, head_dim: int) -> PositionsModule:
        """Angles are computed in fp32 for the positions asked for; there is nothing to store."""
        return _Rotation(self.theta, head_dim)


class _Rotation(PositionsModule):
    def __init__(self, theta: float, head_dim: int) -> None:
        super().__init__()
        self.theta, self.head_dim = theta, head_dim

    def vectors(self, positions: Tensor) -> None:
        return None

    def rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        exponents = torch.arange(0, self.head_dim, 2, device=positions.device).float() / self.head_dim
        angles = positions.float()[..., None, :, None] * (1.0 / self.theta**exponents)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()


def rotate(x_BHTK: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair of channels by its angle."""
    cos, sin = (each.to(x_BHTK.dtype) for each in rotation)
    first, second = x_BHTK.chunk(2, dim=-1)
    return x_BHTK * cos + torch.cat((-second, first), dim=-1) * sin
