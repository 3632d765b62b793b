"""How sub-layers join the residual stream."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from spikeless.nn.attention import Cache, Rotation
from spikeless.nn.norm import Norm
from spikeless.shapes import Hidden

__all__ = ["PreNorm", "Residual"]


class Residual(Protocol):
    """Describes a block: where the norms and the shortcut stand."""

    def build(self, norm: Norm, width: int, attention: torch.nn.Module, ffn: torch.nn.Module) -> torch.nn.Module:
        """A module called as `(hidden, rotation, cache, mask) -> hidden`."""
        ...


@dataclass(frozen=True, kw_only=True)
class PreNorm:
    """x' = x + Attn(norm(x)); y = x' + FFN(norm(x')) (the papers' case)."""

    def build(self, norm: Norm, width: int, attention: torch.nn.Module, ffn: torch.nn.Module) -> torch.nn.Module:
        """The block."""
        return _PreNormBlock(norm, width, attention, ffn)


class _PreNormBlock(torch.nn.Module):
    def __init__(self, norm: Norm, width: int, attention: torch.nn.Module, ffn: torch.nn.Module) -> None:
        super().__init__()
        self.attention_norm, self.attention = norm.build(width), attention
        self.ffn_norm, self.ffn = norm.build(width), ffn

    def forward(self, x: Hidden, rotation: Rotation, cache: Cache | None, mask: Tensor | None = None) -> Hidden:
        x = x + self.attention(self.attention_norm(x), rotation, cache, mask)
        return x + self.ffn(self.ffn_norm(x))
