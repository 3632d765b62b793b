"""Models whose probabilities are known, and folders to evaluate."""

from collections.abc import Callable

import pytest
import torch

from spikeless.data import Tokenizer
from spikeless.data.tokenizers.bpe import Bpe
from spikeless.data.tokenizers.bytes import Bytes
from spikeless.evaluation import Subject
from spikeless.evaluation.scorer import IGNORED, Scores

TEXTS = ("the cat sat on the mat, naïve 🙂 and old. " * 30, "a mat, a cat, a hat; the cat sat. " * 30)


class TableScorer:
    """The next token's logits [V, V] depend on the last token, and a little on how many came before."""

    def __init__(self, vocab_size: int, context_length: int = 16) -> None:
        self.context_length, self.vocab_size = context_length, vocab_size
        generator = torch.Generator().manual_seed(0)
        self.table = 2 * torch.randn(vocab_size, vocab_size, generator=generator, dtype=torch.float64)
        self.calls: list[tuple[int, ...]] = []

    def logits(self, token: int, position: int) -> torch.Tensor:
        return self.table[token] * (1 + position / 10)

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> Scores:
        self.calls.append(tuple(inputs.shape))
        scale = 1 + torch.arange(inputs.shape[1], dtype=torch.float64)[None, :, None] / 10
        logits = self.table[inputs] * scale
        wanted, scored = targets.clamp(min=0), targets != IGNORED
        chosen = logits.log_softmax(-1).gather(-1, wanted[..., None])[..., 0]
        return Scores(chosen * scored, (logits.argmax(-1) == wanted) | ~scored)


@pytest.fixture(scope="session")
def bytes_tokenizer() -> Tokenizer:
    return Bytes().build(lambda: iter(()), "")


@pytest.fixture(scope="session")
def bpe_tokenizer() -> Tokenizer:
    return Bpe(vocab_size=280).build(lambda: iter(TEXTS), "evaluation tests")


@pytest.fixture
def table_subject(bpe_tokenizer) -> Callable[..., Subject]:
    """A model of known probabilities: `table_subject(context_length=8)`."""

    def make(tokenizer: Tokenizer = bpe_tokenizer, context_length: int = 16, **more: object) -> Subject:
        scorer = TableScorer(tokenizer.vocab_size, context_length)
        return Subject(scorer=scorer, tokenizer=tokenizer, **more)

    return make
