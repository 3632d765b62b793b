"""A run that stands for a model that is not ours, so that techniques can edit it and theory can judge the result.

Its parts have the model's sizes, and its initialisation the standard deviations that were measured. It is for theory
alone: built for real it would be another model.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from spikeless.config import slot
from spikeless.errors import UserError
from spikeless.init import InitConfig
from spikeless.nn.attention import SelfAttention
from spikeless.nn.embedding import TokenEmbedding
from spikeless.nn.ffn import MLP, GatedMLP
from spikeless.nn.norm import LayerNorm, Norm, RMSNorm
from spikeless.nn.positions import Learned, Rotary
from spikeless.nn.projection import Dense, Projection
from spikeless.nn.residual import PreNorm
from spikeless.nn.transformer import ModelConfig
from spikeless.roles import Role
from spikeless.run import RunConfig

__all__ = ["MeasuredInit", "proxy_run"]

NormKind = Literal["layernorm", "rmsnorm"]
Form = Literal["pre-norm", "parallel", "sandwich"]
STAND_IN = {  # whose scale a matrix gets that the model does not have, if a technique brings it
    Role.HEAD: Role.TOKEN_EMBEDDING,
    Role.POSITION_EMBEDDING: Role.TOKEN_EMBEDDING,
    Role.FFN_GATE: Role.FFN_UP,
    Role.QUERY: Role.VALUE,
    Role.KEY: Role.VALUE,
}


@dataclass(frozen=True, kw_only=True)
class MeasuredInit:
    """The standard deviation that was measured, by role, whatever the shape."""

    stds: Mapping[str, float] = field(default_factory=dict)

    def std(self, role: Role, d_out: int, d_in: int, *, width: int, num_layers: int) -> float:
        """Standard deviation of the entries of a matrix with this role.

        Raises:
            UserError: none was measured.
        """
        for each in (role, STAND_IN.get(role, role)):
            if each.value in self.stds:
                return self.stds[each.value]
        raise UserError(f"no standard deviation is known for {role.value}; measured: {', '.join(sorted(self.stds))}")


def proxy_run(
    *,
    num_layers: int,
    width: int,
    num_heads: int,
    num_kv_heads: int | None = None,
    head_width: int | None = None,
    ffn_width: int,
    gated: bool,
    norm: NormKind,
    activation: str,
    vocab_size: int,
    tied: bool,
    learned_positions: bool,
    stds: Mapping[str, float],
    embedding_multiplier: float = 1.0,
    embedding_norm: NormKind | None = None,
    norm_eps: float = 1e-5,
    norm_gain: float = 1.0,
    form: Form = "pre-norm",
    query_norm: bool = False,
) -> RunConfig:
    """A run of the same sizes and standard deviations as some model.

    Args:
        num_layers: blocks.
        width: D.
        num_heads: query heads.
        num_kv_heads: key/value heads; None means as many.
        head_width: of a head; None means D / H. Another one is turned into a std of W_O that writes the same variance.
        ffn_width: inner width.
        gated: three matrices instead of two.
        norm: kind of the norms in the blocks.
        activation: by our name or that of transformers.
        vocab_size: rows of the embedding.
        tied: the head is the embedding.
        learned_positions: a vector per position is added to the embedding.
        stds: by role: token_embedding, position_embedding, query, key, value, attention_out, ffn_up, ffn_gate,
            ffn_down.
        embedding_multiplier: on looked-up vectors.
        embedding_norm: kind of the norm behind the embedding; None if there is none.
        norm_eps: of all norms.
        norm_gain: typical weight of the norms in front of the sub-layers.
        form: where norms and shortcut stand.
        query_norm: queries and keys are normed per head.
    """
    stds = dict(stds)
    if head_width is not None and Role.ATTENTION_OUT in stds:
        stds[Role.ATTENTION_OUT.value] *= math.sqrt(num_heads * head_width / width)
    heads, kv_heads = _heads(width, num_heads, num_kv_heads or num_heads)
    return RunConfig(
        recipe="proxy",
        steps=1,
        model=ModelConfig(
            family="proxy",
            vocab_size=vocab_size,
            num_layers=num_layers,
            width=width,
            num_heads=heads,
            num_kv_heads=kv_heads,
            tied=tied,
            embedding=TokenEmbedding(
                multiplier=embedding_multiplier, norm=_norm(embedding_norm, norm_eps) if embedding_norm else None
            ),
            positions=Learned() if learned_positions else Rotary(),
            norm=_norm(norm, norm_eps),
            attention=ForeignAttention(logit_variance=1.0 if query_norm else None),
            ffn=ForeignFeedForward(activation=activation, width=ffn_width, gated=gated),
            residual=ForeignBlock(form=form, norm_gain=norm_gain),
        ),
        init=InitConfig(scheme=MeasuredInit(stds=stds)),
    )


def _heads(width: int, heads: int, kv_heads: int) -> tuple[int, int]:
    """Head counts with the same number of queries per key that divide the width."""
    queries = max(1, heads // kv_heads)
    for each in (heads, queries, 1):
        if width % each == 0 and (width // each) % 2 == 0:
            return each, max(1, each // queries)
    return 1, 1


def _norm(kind: NormKind, eps: float) -> Norm:
    return RMSNorm(eps=eps) if kind == "rmsnorm" else LayerNorm(eps=eps)


@dataclass(frozen=True, kw_only=True)
class ForeignAttention:
    """Shapes of an attention part; `logit_variance` as theory wants it."""

    projection: Projection = slot(Dense(), room="nn.projection")
    logit_variance: float | None = None

    def build(self, width: int, num_heads: int, num_kv_heads: int) -> torch.nn.Module:
        """A module with the right shapes."""
        return SelfAttention(projection=self.projection, bias=False).build(width, num_heads, num_kv_heads)


@dataclass(frozen=True, kw_only=True)
class ForeignFeedForward:
    """Shapes of a feed-forward part; its activation may be one that we do not have."""

    activation: str
    width: int
    gated: bool

    def build(self, width: int) -> torch.nn.Module:
        """A module with the right shapes."""
        part = GatedMLP(width=self.width) if self.gated else MLP(width=self.width)
        return replace(part, bias=False).build(width)


@dataclass(frozen=True, kw_only=True)
class ForeignBlock:
    """Where norms and shortcut stand; `form` and `norm_gain` are read by `strengths_of`."""

    form: Form = "pre-norm"
    norm_gain: float = 1.0

    def build(self, norm: Norm, width: int, attention: torch.nn.Module, ffn: torch.nn.Module) -> torch.nn.Module:
        """A module with the right shapes."""
        return PreNorm().build(norm, width, attention, ffn)
