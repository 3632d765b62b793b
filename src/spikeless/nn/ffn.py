"""Feed-forward sub-layers: the two-matrix one of GPT-2 and the gated one of Llama."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch.nn import functional as F

from spikeless.errors import UserError
from spikeless.shapes import Hidden

__all__ = ["MLP", "FeedForward", "GatedMLP", "inner_width"]

Activation = Literal["gelu_tanh", "gelu", "relu", "silu"]

_ACTIVATIONS = {
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
}


class FeedForward(Protocol):
    """Describes the token-wise sub-layer."""

    def build(self, width: int) -> torch.nn.Module:
        """A module [B, T, D] -> [B, T, D]."""
        ...


@dataclass(frozen=True, kw_only=True)
class MLP:
    """W2 F(W1 x).

    Attributes:
        activation: F.
        width: inner width; None means 4 D.
        bias: a bias on both matrices.
    """

    activation: Activation = "gelu_tanh"
    width: int | None = None
    bias: bool = True

    def build(self, width: int) -> torch.nn.Module:
        """The module."""
        return _MLP(self, width, inner_width(self, width))


@dataclass(frozen=True, kw_only=True)
class GatedMLP:
    """W_down (F(W_gate x) * W_up x); with SiLU this is SwiGLU (Shazeer 2020).

    Attributes:
        activation: F.
        width: inner width; None means 8/3 D rounded up to a multiple of 32, about MLP's parameter count.
        bias: a bias on all three matrices.
    """

    activation: Activation = "silu"
    width: int | None = None
    bias: bool = False

    def build(self, width: int) -> torch.nn.Module:
        """The module."""
        return _GatedMLP(self, width, inner_width(self, width))


def inner_width(ffn: FeedForward, width: int) -> int:
    """The inner width of a feed-forward part in a model of some width; 4 D for a part that does not say.

    Raises:
        UserError: it is not positive.
    """
    default = -(-8 * width // (3 * 32)) * 32 if isinstance(ffn, GatedMLP) else 4 * width
    inner = getattr(ffn, "width", None)
    if inner is not None and inner < 1:
        raise UserError(f"ffn.width={inner} is out of range; use a positive number, or none for {default}")
    return default if inner is None else inner


class _MLP(torch.nn.Module):
    def __init__(self, config: MLP, width: int, inner: int) -> None:
        super().__init__()
        self.activation = _ACTIVATIONS[config.activation]
        self.up = torch.nn.Linear(width, inner, bias=config.bias)
        self.down = torch.nn.Linear(inner, width, bias=config.bias)

    def forward(self, x: Hidden) -> Hidden:
        return self.down(self.activation(self.up(x)))


class _GatedMLP(torch.nn.Module):
    def __init__(self, config: GatedMLP, width: int, inner: int) -> None:
        super().__init__()
        self.activation = _ACTIVATIONS[config.activation]
        self.gate = torch.nn.Linear(width, inner, bias=config.bias)
        self.up = torch.nn.Linear(width, inner, bias=config.bias)
        self.down = torch.nn.Linear(inner, width, bias=config.bias)

    def forward(self, x: Hidden) -> Hidden:
        return self.down(self.activation(self.gate(x)) * self.up(x))
