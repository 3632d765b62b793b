"""Causal self-attention with grouped keys and values, and the cache that generation keeps."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from spikeless.config import slot
from spikeless.nn.positions import rotate
from spikeless.nn.projection import Dense, Projection
from spikeless.shapes import Hidden

__all__ = ["Attention", "Cache", "SelfAttention"]

Rotation = tuple[Tensor, Tensor] | None


class Attention(Protocol):
    """Describes the token-mixing sub-layer."""

    def build(self, width: int, num_heads: int, num_kv_heads: int) -> torch.nn.Module:
        """A module called as `(hidden, rotation, cache, mask) -> hidden`."""
        ...


@dataclass(frozen=True, kw_only=True)
class SelfAttention:
    """softmax(Q K^T / sqrt(K)) V per head, then the output projection.

    Attributes:
        projection: the map that makes queries, keys and values.
        bias: a bias on all four projections.
    """

    projection: Projection = slot(Dense(), room="nn.projection")
    bias: bool = True

    def build(self, width: int, num_heads: int, num_kv_heads: int) -> torch.nn.Module:
        """The module."""
        return _SelfAttention(self, width, num_heads, num_kv_heads)


class Cache:
    """Keys and values of one layer seen so far [B, G, T, K]."""

    def __init__(self) -> None:
        self.key: Tensor | None = None
        self.value: Tensor | None = None

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add new positions; returns all of them."""
        if self.key is not None and self.value is not None:
            key, value = torch.cat((self.key, key), dim=2), torch.cat((self.value, value), dim=2)
        self.key, self.value = key, value
        return key, value

    @property
    def length(self) -> int:
        """Positions held [tokens]."""
        return 0 if self.key is None else self.key.shape[2]


class _SelfAttention(torch.nn.Module):
    def __init__(self, config: SelfAttention, width: int, num_heads: int, num_kv_heads: int) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, width // num_heads
        kv_width = num_kv_heads * self.head_dim
        self.query = config.projection.build(width, width, config.bias)
        self.key = config.projection.build(width, kv_width, config.bias)
        self.value = config.projection.build(width, kv_width, config.bias)
        self.out = torch.nn.Linear(width, width, bias=config.bias)

    def forward(self, x: Hidden, rotation: Rotation, cache: Cache | None, mask: Tensor | None = None) -> Hidden:
        batch, length, width = x.shape
        query = self.query(x).view(batch, length, self.num_heads, self.head_dim).transpose(1, 2)
        key = self.key(x).view(batch, length, self.num_kv_heads, self.head_dim).transpose(1, 2)
        value = self.value(x).view(batch, length, self.num_kv_heads, self.head_dim).transpose(1, 2)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        past = cache.length if cache else 0
        if cache is not None:
            key, value = cache.append(key, value)
        if past and length > 1:
            mask = _continuation_mask(length, past, x.device)
        mixed = torch.nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=past == 0 and mask is None,
            enable_gqa=self.num_kv_heads != self.num_heads,
        )
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


def _continuation_mask(length: int, past: int, device: torch.device) -> Tensor:
    """True where new position i (of `length`) may look at position j (of `past + length`)."""
    new = torch.arange(length, device=device)[:, None] + past
    return new >= torch.arange(past + length, device=device)
