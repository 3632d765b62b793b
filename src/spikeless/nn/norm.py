"""Normalisation over the width."""

from dataclasses import dataclass
from typing import Protocol

import torch

__all__ = ["LayerNorm", "Norm", "RMSNorm"]


class Norm(Protocol):
    """Describes a norm; `build(D)` makes the module, whose weight starts at one."""

    def build(self, width: int) -> torch.nn.Module:
        """A module [..., D] -> [..., D]."""
        ...


@dataclass(frozen=True, kw_only=True)
class LayerNorm:
    """g * (x - mean) / sqrt(var + eps) + b, with population moments over the width."""

    eps: float = 1e-5
    bias: bool = True

    def build(self, width: int) -> torch.nn.Module:
        """A module [..., D] -> [..., D]."""
        return torch.nn.LayerNorm(width, eps=self.eps, bias=self.bias)


@dataclass(frozen=True, kw_only=True)
class RMSNorm:
    """g * x / sqrt(mean(x^2) + eps)."""

    eps: float = 1e-5

    def build(self, width: int) -> torch.nn.Module:
        """A module [..., D] -> [..., D]."""
        return torch.nn.RMSNorm(width, eps=self.eps)
