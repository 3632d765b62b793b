"""Attention's logits and entropy: leading indicators of instability (Wortsman et al. 2023, Zhai et al. 2023)."""

from dataclasses import dataclass

import torch

from spikeless.diagnostics.anatomy import BlockView

__all__ = ["attention_statistics"]

MASKED = 1e3
"""A key whose logit is so far below the largest is masked: its weight is zero in any precision."""


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
    logits, weights = (view.tensor(node).detach() for node in (part.logits, part.weights))
    queries, keys = weights.shape[-2:]
    logits, weights = (each.reshape(-1, queries, keys) for each in (logits, weights))
    heads, rest = divmod(len(weights), view.entered.shape[0])
    if rest or not heads:  # the batch is not the first dimension
        return None
    causal = torch.ones(queries, keys, dtype=torch.bool, device=weights.device).tril(keys - queries)
    largest, entropies, relatives = [], [], []
    for scores, shares in zip(logits, weights, strict=True):  # one head at a time stays in the cache
        scores, shares = scores.float(), shares.float()
        seen = causal & (scores > scores.amax(1, keepdim=True) - MASKED)
        entropy = torch.special.entr(shares).sum(1)
        visible = seen.sum(1)
        several = visible > 1
        relative = torch.where(several, entropy / visible.clamp(min=2).log(), 0.0)
        largest.append(scores.abs().mul_(seen).nan_to_num_(0.0, 0.0, 0.0).max())
        entropies.append(entropy.mean())
        relatives.append(relative.sum() / several.sum().clamp(min=1))
    relative = torch.stack(relatives).view(-1, heads).mean(0)
    entropy = torch.stack(entropies).mean()
    finite = bool(entropy.isfinite())
    return AttentionStatistics(
        logit_max=float(torch.stack(largest).max()) if finite else float("nan"),
        entropy=float(entropy),
        relative_entropy=float(relative.mean()),
        lowest_head=float(relative.min()),
    )
