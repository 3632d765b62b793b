"""A causal language model assembled from the parts in its slots."""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikeless.config import slot
from spikeless.errors import UserError
from spikeless.nn.attention import Attention, Cache, Rotation, SelfAttention
from spikeless.nn.boundaries import document_layout
from spikeless.nn.embedding import Embedding, TokenEmbedding
from spikeless.nn.ffn import MLP, FeedForward
from spikeless.nn.norm import LayerNorm, Norm
from spikeless.nn.positions import Learned, Positions, Rotary
from spikeless.nn.residual import PreNorm, Residual
from spikeless.shapes import Hidden, Logits, Tokens

__all__ = ["ModelConfig", "Transformer"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes and parts of a model.

    Attributes:
        family: the file in `models/` that knows its Hugging Face form.
        vocab_size: rows of the embedding [tokens]; None means the tokenizer's.
        num_kv_heads: key/value heads (grouped-query attention); None means num_heads.
        context_length: longest sequence [tokens].
        tied: the head shares the embedding's weights.
    """

    family: str
    vocab_size: int | None = None
    num_layers: int
    width: int
    num_heads: int
    num_kv_heads: int | None = None
    context_length: int = 1024
    tied: bool = True
    embedding: Embedding = slot(TokenEmbedding(), room="nn.embedding")
    positions: Positions = slot(Learned(), room="nn.positions")
    norm: Norm = slot(LayerNorm(), room="nn.norm")
    attention: Attention = slot(SelfAttention(), room="nn.attention")
    ffn: FeedForward = slot(MLP(), room="nn.ffn")
    residual: Residual = slot(PreNorm(), room="nn.residual")

    def check(self) -> None:
        """Refuse sizes that make no model.

        Raises:
            UserError: what is wrong and what would be right.
        """
        for name in ("vocab_size", "num_layers", "width", "num_heads", "num_kv_heads", "context_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"model.{name}={value} is out of range; use a whole number from 1")
        if self.width % self.num_heads:
            divisors = [n for n in range(1, self.width + 1) if self.width % n == 0]
            near = sorted(divisors, key=lambda n: abs(n - self.num_heads))[:3]
            raise UserError(
                f"model.width={self.width} is not divisible by model.num_heads={self.num_heads}; "
                f"with this width use num_heads of {', '.join(map(str, sorted(near)))}"
            )
        if self.num_heads % self.kv_heads:
            raise UserError(f"model.num_heads={self.num_heads} is not divisible by num_kv_heads={self.kv_heads}")
        if isinstance(self.positions, Rotary) and (self.width // self.num_heads) % 2:
            raise UserError(f"rotary positions need an even head width, not {self.width // self.num_heads}")

    @property
    def kv_heads(self) -> int:
        """Key/value heads."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads


class Transformer(torch.nn.Module):
    """Embedding, blocks, final norm, head. Parameters are drawn by `init.initialise`, not here."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        config.check()
        if config.vocab_size is None:
            raise UserError("model.vocab_size is not set; give a number or a tokenizer")
        self.config = config
        self.embedding = _built(config, "embedding", config.vocab_size, config.width, needs=("weight", "transform"))
        if self.embedding.weight.shape != (config.vocab_size, config.width):
            raise UserError(
                f"model.embedding: its module's weight is {list(self.embedding.weight.shape)}; "
                f"it must be vocab_size x width, {[config.vocab_size, config.width]}"
            )
        sizes = config.context_length, config.width, config.width // config.num_heads
        self.positions = _built(config, "positions", *sizes, needs=("vectors", "rotation"))
        self.blocks = torch.nn.ModuleList(_block(config) for _ in range(config.num_layers))
        self.final_norm = config.norm.build(config.width)
        self.head = None if config.tied else torch.nn.Linear(config.width, config.vocab_size, bias=False)

    @property
    def output_weight(self) -> Tensor:
        """The matrix [V, D] that turns hidden vectors into logits."""
        return self.embedding.weight if self.head is None else self.head.weight

    def hidden(self, tokens: Tokens, caches: Sequence[Cache] | None = None, documents: Tensor | None = None) -> Hidden:
        """The vectors after the final norm.

        Args:
            tokens: token ids.
            caches: one a layer; the tokens continue what they hold.
            documents: the index of each token's document [B, T]: tokens see their own document only, and positions
                begin anew in each. Not together with `caches`.
        """
        assert caches is None or documents is None
        past = caches[0].length if caches else 0
        positions, mask = torch.arange(past, past + tokens.shape[1], device=tokens.device), None
        if documents is not None:
            positions, mask = document_layout(documents)
        x, rotation = self._enter(tokens, positions)
        for index, block in enumerate(self.blocks):
            x = block(x, rotation, caches[index] if caches else None, mask)
        return self.final_norm(x)

    def streams(self, tokens: Tokens) -> Iterator[Hidden]:
        """The residual stream before the first block, and after each."""
        x, rotation = self._enter(tokens, torch.arange(tokens.shape[1], device=tokens.device))
        yield x
        for block in self.blocks:
            x = block(x, rotation, None, None)
            yield x

    def _enter(self, tokens: Tokens, positions: Tensor) -> tuple[Hidden, Rotation]:
        """What the first block gets: the embedded tokens, and the rotation of their positions if they are rotary."""
        x, vectors = self._embed(tokens), self.positions.vectors(positions)
        return x if vectors is None else x + vectors, self.positions.rotation(positions)

    def _embed(self, tokens: Tokens) -> Hidden:
        """The embedding's own `forward` if it has one, else what its `transform` makes of the rows of its table."""
        if type(self.embedding).forward is torch.nn.Module.forward:
            return self.embedding.transform(torch.nn.functional.embedding(tokens, self.embedding.weight))
        return self.embedding(tokens)

    def forward(self, tokens: Tokens, caches: Sequence[Cache] | None = None) -> Logits:
        """Next-token logits at every position."""
        return torch.nn.functional.linear(self.hidden(tokens, caches), self.output_weight)


def _block(config: ModelConfig) -> torch.nn.Module:
    attention = _built(config, "attention", config.width, config.num_heads, config.kv_heads)
    return _built(config, "residual", config.norm, config.width, attention, _built(config, "ffn", config.width))


def _built(config: ModelConfig, slot_name: str, *arguments: Any, needs: Sequence[str] = ()) -> Any:
    """The module that the part in a slot builds.

    Raises:
        UserError: the part takes other arguments, or what it builds is no module or lacks what the model asks of it.
    """
    part = getattr(config, slot_name)
    try:
        inspect.signature(part.build).bind(*arguments)
    except TypeError as error:
        raise UserError(f"model.{slot_name}: {type(part).__name__} cannot be built here: {error}") from None
    module = part.build(*arguments)
    if not isinstance(module, torch.nn.Module):
        raise UserError(f"model.{slot_name}: `build` gave a {type(module).__name__}; it must give a torch.nn.Module")
    if lacking := [each for each in needs if not hasattr(module, each)]:
        raise UserError(f"model.{slot_name}: the module {type(module).__name__} lacks {' and '.join(lacking)}")
    return module
