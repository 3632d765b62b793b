"""Embeddings drawn with standard deviation one, the head untied, no embedding weight decay.

Acts on:    embedding
Prevents:   gradient growth through the first norms, which scale it by 1/sigma_x
Watch:      tev/mean, tev/effective_mean, grad_norm
Cost:       a second V x D matrix where the head was tied
Conflicts:  embed_norm, scaled_embed
Reference:  Takase et al., arXiv 2312.16903, footnote (not tested there); Megatron-LM's embedding_init_method_std

The head is untied since a tied one would inflate the logits by 1/sigma. Under Adam this differs from
Scaled Embed: a multiplier makes the effective steps of the embedding sqrt(D) times larger.
"""

from dataclasses import dataclass

from spikeless.config import replace_at
from spikeless.roles import Role
from spikeless.run import RunConfig

__all__ = ["EmbedStdOne"]


@dataclass(frozen=True, kw_only=True)
class EmbedStdOne:
    """N(0, 1) token embeddings."""

    def __call__(self, run: RunConfig) -> RunConfig:
        """The run with the technique applied."""
        return replace_at(
            run,
            {
                "init.target_std.token_embedding": 1.0,
                "model.tied": False,
                "optim.undecayed": (*getattr(run.optim, "undecayed", ()), Role.TOKEN_EMBEDDING.value),
            },
        )
