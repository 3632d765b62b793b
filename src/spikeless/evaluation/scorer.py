"""How likely a model finds given tokens: our own models and those of `transformers` behind one call."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from spikeless.nn.transformer import Transformer
from spikeless.shapes import Tokens

__all__ = ["IGNORED", "ForeignScorer", "Scorer", "Scores", "TransformerScorer"]

IGNORED = -100
"""A target that is not scored."""
CHUNK_ROWS = 512
"""Logits in fp32 exist for so many tokens at a time [tokens]."""


class Scores(NamedTuple):
    """What a model says of targets [B, T].

    Attributes:
        log_probabilities: log softmax(logits)_target, at least fp32 [nats]; 0 where the target is IGNORED.
        greedy: whether the target is the likeliest token; True where it is IGNORED.
    """

    log_probabilities: Tensor
    greedy: Tensor


class Scorer(Protocol):
    """A causal language model that is asked for nothing but the probability of given tokens."""

    @property
    def model(self) -> Any:
        """The model itself, of ours or of `transformers`."""
        ...

    @property
    def context_length(self) -> int | None:
        """Most tokens that it takes at a time [tokens]."""
        ...

    @property
    def vocab_size(self) -> int:
        """Ids that it takes are below this [tokens]."""
        ...

    def __call__(self, inputs: Tokens, targets: Tokens) -> Scores:
        """Score `targets[b, t]` given `inputs[b, :t + 1]`.

        Tokens after a position change nothing there, so rows of several lengths are padded on the right.
        """
        ...


class TransformerScorer:
    """One of our models; only rows with a target meet the head, a chunk at a time.

    Args:
        model: on its device, in evaluation mode.
        bf16: compute under autocast to bf16.
    """

    def __init__(self, model: Transformer, *, bf16: bool = False) -> None:
        self.model, self._bf16 = model, bf16
        self.context_length = model.config.context_length
        self.vocab_size, _ = model.output_weight.shape

    @torch.no_grad()
    def __call__(self, inputs: Tokens, targets: Tokens) -> Scores:
        """Score targets; see `Scorer`."""
        weight = self.model.output_weight
        inputs, targets = inputs.to(weight.device), targets.to(weight.device)
        with torch.autocast(weight.device.type, torch.bfloat16, enabled=self._bf16):
            hidden = self.model.hidden(inputs).flatten(0, 1)
            return _score(lambda rows: F.linear(hidden[rows], weight), targets)


class ForeignScorer:
    """A causal language model of `transformers`; its logits of a whole batch exist at a time, in its own type."""

    def __init__(self, model: Any, context_length: int | None) -> None:
        self.model, self.context_length = model, context_length
        self.vocab_size: int = model.get_input_embeddings().weight.shape[0]

    @torch.no_grad()
    def __call__(self, inputs: Tokens, targets: Tokens) -> Scores:
        """Score targets; see `Scorer`."""
        device = self.model.get_input_embeddings().weight.device
        logits = self.model(input_ids=inputs.to(device), use_cache=False).logits.flatten(0, 1)
        return _score(lambda rows: logits[rows], targets.to(device))


def _score(logits_of: Callable[[Tensor], Tensor], targets: Tokens) -> Scores:
    wanted = targets.flatten()
    log_probabilities, greedy = [], []
    places = (wanted != IGNORED).nonzero()[:, 0]
    for rows in places.split(CHUNK_ROWS):
        logits = logits_of(rows)
        logits = logits.float() if logits.dtype.itemsize < 4 else logits
        chosen = logits.gather(1, wanted[rows, None])[:, 0]
        log_probabilities.append(chosen - logits.logsumexp(1))
        greedy.append(logits.argmax(1) == wanted[rows])
    scored = torch.cat(log_probabilities)
    return Scores(
        log_probabilities=scored.new_zeros(len(wanted)).index_copy(0, places, scored).view_as(targets),
        greedy=torch.ones_like(wanted, dtype=torch.bool).index_copy(0, places, torch.cat(greedy)).view_as(targets),
    )
