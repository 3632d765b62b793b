"""Text from a trained model, one token at a time, with a cache of keys and values."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikeless.data import Tokenizer
from spikeless.errors import UserError
from spikeless.nn.attention import Cache
from spikeless.nn.transformer import Transformer

__all__ = ["SamplingConfig", "generate", "written"]


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the next token is drawn.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: only the k likeliest tokens; 0 keeps all.
        top_p: only the likeliest tokens that together have this probability (Holtzman et al. 2020).
        seed: of the draws.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"temperature {self.temperature} is out of range; use a finite number from 0")
        if self.top_k < 0:
            raise UserError(f"top-k {self.top_k} is out of range; use 0 (all tokens) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top-p {self.top_p} is out of range; use more than 0, at most 1")
        if not 0 <= self.seed < 1 << 63:
            raise UserError(f"seed {self.seed} is out of range; use a whole number from 0 to 2^63 - 1")


@torch.no_grad()
def generate(
    model: Transformer | Any,
    prompt: Sequence[int],
    max_tokens: int,
    sampling: SamplingConfig,
    context: int | None = None,
) -> Iterator[int]:
    """Token ids that continue a prompt, one by one; at the end of the context the oldest half is forgotten.

    Args:
        model: ours, or one of `transformers`, which reads all tokens again at every step.
        prompt: token ids.
        max_tokens: how many to draw.
        sampling: how.
        context: most tokens that the model sees; our own models say it themselves.

    Raises:
        UserError: the prompt is empty.
    """
    if not prompt:
        raise UserError("the prompt is empty; give at least one token")
    ours = isinstance(model, Transformer)
    context = model.config.context_length if ours else context or len(prompt) + max_tokens
    generator = torch.Generator().manual_seed(sampling.seed)
    seen, caches = list(prompt)[-context:], _caches(model)
    device = next(model.parameters()).device
    for _ in range(max_tokens):
        if len(seen) > context:
            seen = seen[-max(1, context // 2) :]
        if ours:
            new = seen[-1:]
            if any(cache.length != len(seen) - 1 for cache in caches):  # at a start, and where a part fills no cache
                new, caches = seen, _caches(model)
            logits = model(torch.tensor([new], device=device), caches)
        else:
            logits = model(input_ids=torch.tensor([seen], device=device), use_cache=False).logits
        token = draw(logits[0, -1].float().cpu(), sampling, generator)
        seen.append(token)
        yield token


def _caches(model: Any) -> list[Cache]:
    return [Cache() for _ in model.blocks] if isinstance(model, Transformer) else []


def written(tokenizer: Tokenizer, prompt: Sequence[int], tokens: Iterable[int]) -> Iterator[str]:
    """The text that tokens add to a prompt's, piece by piece: nothing is hidden, and no piece ends within a character.

    Decoders join tokens with a view to those before them, so each stretch is decoded together with the one before.
    An id that is no token, of a table larger than the vocabulary, is written as `<id N>`.

    Args:
        tokenizer: knows the text of a token.
        prompt: the ids before them, without what documents begin with.
        tokens: new ids.
    """
    ids, begin, shown = list(prompt), 0, len(prompt)

    def fresh() -> str:
        return tokenizer.decode(ids[begin:])[len(tokenizer.decode(ids[begin:shown])) :]

    for token in tokens:
        if tokenizer.id_to_token(token) is None:
            yield f"{fresh()}<id {token}>"
            begin = shown = len(ids)
            continue
        ids.append(token)
        if (text := fresh()) and not text.endswith("\ufffd"):  # a character may take several tokens
            yield text
            begin, shown = shown, len(ids)
    if rest := fresh():
        yield rest


def draw(logits: Tensor, sampling: SamplingConfig, generator: torch.Generator) -> int:
    """One token id from logits [V].

    Raises:
        UserError: a logit is NaN or infinite: the model is broken.
    """
    if logits.isnan().any() or logits.max() == torch.inf:
        raise UserError("the model computes non-finite logits; its checkpoint is of a run that was about to fail")
    if sampling.temperature == 0:
        return int(logits.argmax())
    logits = (logits.double() - logits.max()) / sampling.temperature  # no temperature is too small for that
    if 0 < sampling.top_k < len(logits):
        kept = logits.topk(sampling.top_k)
        logits = torch.full_like(logits, -torch.inf).scatter(0, kept.indices, kept.values)
    if sampling.top_p < 1:
        probabilities, order = logits.softmax(0).sort(descending=True)
        before = probabilities.cumsum(0) - probabilities
        logits = logits.index_fill(0, order[before >= sampling.top_p], -torch.inf)
    return int(torch.multinomial(logits.softmax(0), 1, generator=generator))
