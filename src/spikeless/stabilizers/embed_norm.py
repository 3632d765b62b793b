"""Embed LN: the family's own norm on the token embeddings.

Acts on:    embedding
Prevents:   gradient growth through the first norms: the shortcut has standard deviation one
Watch:      tev/effective_mean, grad_norm
Cost:       one norm per token; a learnable gain
Conflicts:  scaled_embed, embed_std_one
Reference:  Takase et al., arXiv 2312.16903; BLOOM (Le Scao et al. 2022)

Our definition: LayerNorm for gpt2, RMSNorm for llama, learnable gain, on the token embedding before
positions. Its epsilon is far below the variance of the rows at any initialisation (Xavier: 2 / (V + D)), so
that they come out with standard deviation one. Never insert it into a model that was trained without it.
"""

from dataclasses import dataclass, fields, is_dataclass, replace

from spikeless.config import replace_at
from spikeless.run import RunConfig

__all__ = ["EmbedNorm"]


@dataclass(frozen=True, kw_only=True)
class EmbedNorm:
    """norm(e) before positions are added.

    Attributes:
        eps: the norm's epsilon, where it has one; up to version 0.1.0 it was that of the model's other norms, 1e-5.
    """

    eps: float = 1e-12

    def __call__(self, run: RunConfig) -> RunConfig:
        """The run with the technique applied."""
        norm = run.model.norm
        if is_dataclass(norm) and "eps" in (each.name for each in fields(norm)):
            norm = replace(norm, eps=self.eps)
        return replace_at(run, {"model.embedding.norm": norm})
