"""Next-token cross-entropy that never holds all logits."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spikeless.errors import UserError
from spikeless.shapes import Hidden, Tokens

__all__ = ["CrossEntropy"]

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Mean of -log softmax(W h)_target over tokens [nats/token].

    The gradients are made chunk by chunk together with the loss, so nothing is computed twice. Softmax and sums are in
    fp32 or better, products in the type of autocast.

    Attributes:
        chunk_tokens: logits exist for so many tokens at a time.
    """

    chunk_tokens: int = 512

    def __post_init__(self) -> None:
        if self.chunk_tokens < 1:
            raise UserError(f"loss.chunk_tokens={self.chunk_tokens} is out of range; use a whole number from 1")

    def __call__(self, hidden: Hidden, weight: Tensor, targets: Tokens) -> Tensor:
        """The loss of hidden vectors under the head's weight [V, D], a scalar in fp32; one backward pass may follow."""
        rows, dtype = hidden.flatten(0, -2), _computed(hidden)
        with torch.autocast(rows.device.type, enabled=False):
            return _Chunked.apply(rows, weight, targets.flatten(), self.chunk_tokens, dtype)  # type: ignore[no-any-return]


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, targets: Tensor, chunk: int, dtype: torch.dtype) -> Tensor:
        exact = torch.promote_types(dtype, torch.float32)
        total = rows.new_zeros((), dtype=exact)
        row_gradient = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        weight_gradient = torch.zeros_like(weight, dtype=exact) if ctx.needs_input_grad[1] else None
        table = weight.to(dtype)
        for start in range(0, len(rows), chunk):
            place = slice(start, start + chunk)
            inputs, wanted = rows[place].to(dtype), targets[place, None]
            log_p = torch.log_softmax(inputs @ table.t(), 1, dtype=exact)
            total -= log_p.gather(1, wanted).sum()
            if row_gradient is None and weight_gradient is None:
                continue
            slope = log_p.exp_().scatter_add_(1, wanted, log_p.new_full((), -1.0).expand_as(wanted)).to(dtype)
            if row_gradient is not None:
                row_gradient[place] = slope @ table
            if weight_gradient is not None and dtype == exact:
                weight_gradient.addmm_(slope.t(), inputs)
            elif weight_gradient is not None:
                weight_gradient += slope.t() @ inputs
        ctx.gradients = row_gradient, weight_gradient
        ctx.count = len(rows)
        return total.float() / len(rows) if exact == torch.float32 else total / len(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if ctx.gradients is None:
            raise RuntimeError("the gradients of this loss were taken already; compute the loss again")
        gradients, ctx.gradients = ctx.gradients, None  # scaled in place: [V, D] is too large for a copy
        scale = above / ctx.count
        return (*(None if each is None else each.mul_(scale) for each in gradients), None, None, None)


def _computed(hidden: Tensor) -> torch.dtype:
    """The type of the products: that of autocast, unless the CPU would only emulate it, slower than fp32."""
    device = hidden.device.type
    if not torch.is_autocast_enabled(device):
        return hidden.dtype
    wanted = torch.get_autocast_dtype(device)
    if device == "cpu" and wanted == torch.bfloat16 and hasattr(torch.cpu, "get_capabilities"):
        known = torch.cpu.get_capabilities()
        return wanted if any(known.get(name) for name in BF16_INSTRUCTIONS) else torch.float32
    return wanted
