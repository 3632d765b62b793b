"""Text from a trained model, one token at a time, with a cache of keys and values."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from spikeless.data import Tokenizer
from spikeless.errors import UserError
from spikeless.nn.attention import Cache
from spikeless.nn.transformer import Transformer
from spikeless.run import RunConfig
from spikeless.training.trained import load_trained

__all__ = ["SamplingConfig", "generate", "load_model"]


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


def load_model(path: Path, run: RunConfig | None = None) -> tuple[Transformer, Tokenizer]:
    """The model and tokenizer of a run folder or checkpoint; see `load_trained`."""
    trained = load_trained(path, run)
    return trained.model, trained.tokenizer


@torch.no_grad()
def generate(model: Transformer, prompt: Sequence[int], max_tokens: int, sampling: SamplingConfig) -> Iterator[int]:
    """Token ids that continue a prompt, one by one; at the end of the context the oldest half is forgotten.

    Raises:
        UserError: the prompt is empty.
    """
    if not prompt:
        raise UserError("the prompt is empty; give at least one token")
    context = model.config.context_length
    generator = torch.Generator().manual_seed(sampling.seed)
    seen, new, caches = list(prompt)[-context:], None, [Cache() for _ in model.blocks]
    for _ in range(max_tokens):
        if new is not None and caches[0].length + 1 > context:
            seen, new, caches = seen[-max(1, context // 2) :], None, [Cache() for _ in model.blocks]
        inputs = torch.tensor([seen if new is None else [new]], device=model.output_weight.device)
        new = draw(model(inputs, caches)[0, -1].float().cpu(), sampling, generator)
        seen.append(new)
        yield new


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
