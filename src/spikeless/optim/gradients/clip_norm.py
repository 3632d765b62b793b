"""Clip the global gradient norm (Pascanu et al. 2013)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from spikeless.errors import UserError

__all__ = ["ClipNorm"]


@dataclass(frozen=True, kw_only=True)
class ClipNorm:
    """g <- g * min(1, max_norm / ||g||); gradients whose norm is not finite stay as they are, and the run stops."""

    max_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.max_norm <= 0:
            raise UserError(f"max_norm={self.max_norm} is out of range; use a positive number, or gradients=none")

    def apply(self, gradients: list[Tensor], grad_norm: Tensor) -> None:
        """Scale all gradients in place, without a host synchronisation."""
        share = torch.where(grad_norm.isfinite(), self.max_norm / grad_norm, 1.0)
        torch._foreach_mul_(gradients, share.clamp(max=1.0))
