"""Gradient transforms, one file each, applied in the order in which the run lists them."""

from typing import Protocol

from torch import Tensor

__all__ = ["GradientTransform"]


class GradientTransform(Protocol):
    """Describes a change of the gradients between the backward pass and the optimizer's step."""

    def apply(self, gradients: list[Tensor], grad_norm: Tensor) -> None:
        """Change `gradients` in place; `grad_norm` is their global L2 norm before any transform."""
        ...
