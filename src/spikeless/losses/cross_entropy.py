"""Next-token cross-entropy that never holds all logits."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from spikeless.errors import UserError
from spikeless.shapes import Hidden, Tokens

__all__ = ["CrossEntropy"]


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Mean of -log softmax(W h)_target over tokens [nats/token].

    Attributes:
        chunk_tokens: logits exist for so many tokens at a time.
    """

    chunk_tokens: int = 512

    def __post_init__(self) -> None:
        if self.chunk_tokens < 1:
            raise UserError(f"loss.chunk_tokens={self.chunk_tokens} is out of range; use a whole number from 1")

    def __call__(self, hidden: Hidden, weight: Tensor, targets: Tokens) -> Tensor:
        """The loss of hidden vectors under the head's weight [V, D], a scalar in fp32."""
        rows, wanted = hidden.flatten(0, -2), targets.flatten()
        if not hasattr(F, "linear_cross_entropy"):  # torch < 2.13
            return self._recomputed(rows, weight, wanted)
        if torch.is_autocast_enabled(rows.device.type):  # the fused kernel works in the type of its inputs
            rows = rows.to(torch.get_autocast_dtype(rows.device.type))
        options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=min(self.chunk_tokens, len(rows)))
        # Its mean adds up the chunks in that type: in bf16 the loss would be off by per cents, so take it ourselves.
        reduction = "none" if rows.dtype.itemsize < 4 else "mean"
        losses = F.linear_cross_entropy(rows, weight.to(rows.dtype), wanted, reduction=reduction, options=options)
        return losses.float().mean()

    def _recomputed(self, rows: Tensor, weight: Tensor, wanted: Tensor) -> Tensor:
        """The same by chunks whose logits are computed again in the backward pass."""

        def chunk_sum(chunk: Tensor, targets: Tensor) -> Tensor:
            return F.cross_entropy(F.linear(chunk, weight).float(), targets, reduction="sum")

        chunks = zip(rows.split(self.chunk_tokens), wanted.split(self.chunk_tokens), strict=True)
        sums = [checkpoint(chunk_sum, *chunk, use_reentrant=False) for chunk in chunks]
        return torch.stack(sums).sum() / len(rows)  # type: ignore[arg-type]
