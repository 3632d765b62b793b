"""Scaled Embed: multiply token embeddings by sqrt(D) so that the shortcut is large.

Acts on:    embedding
Prevents:   gradient growth through the first norms, which scale it by 1/sigma_x
Watch:      tev/effective_mean, grad_norm
Cost:       one multiply per token
Conflicts:  embed_norm, embed_std_one
Reference:  Takase et al., arXiv 2312.16903

The multiplier is sqrt(D), not 1/sigma: from small init the vectors' standard deviation becomes
sqrt(2/5) = 0.632. A tied head keeps its small weights, so the logits at initialisation do not change scale.
"""

import math
from dataclasses import dataclass

from spikeless.config import replace_at
from spikeless.run import RunConfig

__all__ = ["ScaledEmbed"]


@dataclass(frozen=True, kw_only=True)
class ScaledEmbed:
    """Embedding vectors times sqrt(D) in the forward pass."""

    def __call__(self, run: RunConfig) -> RunConfig:
        """The run with the technique applied."""
        return replace_at(run, {"model.embedding.multiplier": math.sqrt(run.model.width)})
