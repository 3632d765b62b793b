"""Embed Detach: let only a share of the gradient reach the embedding.

Acts on:    embedding gradient
Prevents:   large embedding gradients early in training; the shortcut stays small, so not condition 2
Watch:      grad_norm, tev/relative
Cost:       one multiply-add per token
Conflicts:  none
Reference:  Zeng et al. 2022 (GLM-130B); Takase et al., arXiv 2312.16903

e <- gamma e + (1 - gamma) stop_gradient(e). With a tied head only the input path shrinks; with an untied
one Adam nearly cancels the constant, which it sees only through epsilon and clipping.
"""

from dataclasses import dataclass

from spikeless.config import replace_at
from spikeless.errors import UserError
from spikeless.run import RunConfig

__all__ = ["EmbedDetach"]


@dataclass(frozen=True, kw_only=True)
class EmbedDetach:
    """The same vectors forward, `gamma` of their gradient backward."""

    gamma: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.gamma <= 1:
            raise UserError(f"embed_detach(gamma={self.gamma}) is out of range; use more than 0, at most 1")

    def __call__(self, run: RunConfig) -> RunConfig:
        """The run with the technique applied."""
        return replace_at(run, {"model.embedding.gradient_share": self.gamma})
