"""Attention's logits and entropy: leading indicators of instability (Wortsman et al. 2023, Zhai et al. 2023)."""

from dataclasses import dataclass

import torch

from spikeless.diagnostics.anatomy import BlockView

__all__ = ["attention_statistics"]


@dataclass(frozen=True, kw_only=True)
class AttentionStatistics:
    """Of one block.

    Attributes:
        logit_max: largest |logit| among visible keys.
        entropy: mean over sequences, heads and queries [nats].
        relative_entropy: mean of the entropy over the log of the number of visible keys, of queries with two and more.
        lowest_head: the smallest mean relative entropy of a head.
    """

    logit_max: float
    entropy: float
    relative_entropy: float
    lowest_head: float


def attention_statistics(view: BlockView, index: int) -> AttentionStatistics | None:
    """Largest |logit| [dimensionless] and entropy [nats] of a sub-layer's attention; None if it has none.

    Reference: Wortsman et al. 2023 (attention logits); Zhai et al., arXiv 2303.06296 (entropy collapse).
    """
    part = view.parts[index].attention
    if part is None:
        return None
    logits, weights = (view.tensor(node).detach().float() for node in (part.logits, part.weights))
    tokens = weights.shape[-1]
    batch = view.entered.shape[0]
    weights = weights.reshape(batch, -1, *weights.shape[-2:])
    logits = logits.reshape(batch, -1, *logits.shape[-2:])
    seen = (logits > torch.finfo(torch.float16).min) & logits.isfinite()
    causal = torch.ones(logits.shape[-2], tokens, dtype=torch.bool, device=logits.device).tril(
        tokens - logits.shape[-2]
    )
    seen &= causal
    entropy = -(weights * weights.clamp(min=torch.finfo(weights.dtype).tiny).log()).sum(-1)
    keys = seen.sum(-1)
    several = keys > 1
    relative = torch.where(several, entropy / keys.clamp(min=2).log(), 0.0)
    per_head = relative.sum((0, 2)) / several.sum((0, 2)).clamp(min=1)
    broken = not bool(weights.isfinite().all())
    largest = logits.abs().masked_fill(~seen, 0.0).max()
    return AttentionStatistics(
        logit_max=float("nan") if broken else float(largest),
        entropy=float(entropy.mean()),
        relative_entropy=float(per_head.mean()),
        lowest_head=float(per_head.min()),
    )
