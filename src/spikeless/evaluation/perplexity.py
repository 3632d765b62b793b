"""Perplexity and bits per byte of documents."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from spikeless.data.documents import Document
from spikeless.errors import UserError
from spikeless.evaluation.subject import Subject
from spikeless.evaluation.windows import Window, rolling_windows, score_windows
from spikeless.stats import perplexity

__all__ = ["Perplexity", "evaluate_perplexity"]


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """How well a model predicts documents, each by itself.

    Attributes:
        loss: mean of -log p over the tokens [nats/token]. Depends on the tokenizer.
        perplexity: exp(loss) [dimensionless]; infinite where fp64 cannot hold it.
        bits_per_byte: -log2 p of all tokens over the bytes of the text. Does not depend on how text is cut into
            tokens, so models with different tokenizers may be compared.
        documents: scored [documents].
        tokens: scored [tokens]; end-of-text is not among them.
        bytes: of the documents in UTF-8 [bytes]; messages count as the text that the chat template makes of them. None
            for token ids, whose text is not known, and so are bits per byte.
        sequence_length: most tokens that the model saw at once [tokens].
        stride: tokens scored by each window after a document's first [tokens].
    """

    loss: float
    perplexity: float
    bits_per_byte: float | None
    documents: int
    tokens: int
    bytes: int | None
    sequence_length: int
    stride: int


def evaluate_perplexity(
    subject: Subject,
    documents: Iterable[Document],
    *,
    batch_size: int = 8,
    sequence_length: int | None = None,
    stride: int | None = None,
    max_tokens: int | None = None,
) -> Perplexity:
    """Score every token of every document once.

    A document is scored by itself: its first token is predicted from what documents begin with, or from the
    end-of-text of the one before where that is nothing; neither is scored. This is the rolling log-likelihood of
    EleutherAI's lm-eval, and bits per byte is its `bits_per_byte`, where the tokenizer puts no bos token before a text
    by itself. Where it does, as Llama's, lm-eval scores that token too.

    Args:
        subject: the model and its tokenizer.
        documents: to score; memory holds a few at a time.
        batch_size: windows computed at once [windows].
        sequence_length: most tokens to see at once; the model's context length if None.
        stride: tokens scored by each window after a document's first; `sequence_length` if None. A smaller one gives
            them more context and costs more.
        max_tokens: stop after the document that reaches so many tokens.

    Raises:
        UserError: an option is out of range, or there is nothing to score.
        UnhealthyRun: the model computes non-finite numbers.
    """
    length = subject.window_length(sequence_length)
    step = length if stride is None else stride
    if not 1 <= step <= length:
        raise UserError(f"stride {step} is out of range; use 1 to the sequence length, {length}")
    if max_tokens is not None and max_tokens < 1:
        raise UserError(f"{max_tokens} tokens were asked for; use a whole number from 1")
    seen = _Seen()

    def windows() -> Iterator[Window]:
        for document in documents:
            tokens, size = subject.encode_document(document)
            seen.documents += 1
            seen.tokens += len(tokens)
            seen.bytes = None if size is None or seen.bytes is None else seen.bytes + size
            yield from rolling_windows(tokens, subject.prefix, length, step)
            if max_tokens is not None and seen.tokens >= max_tokens:
                break

    nats = -math.fsum(score.log_probability for score in score_windows(subject.scorer, windows(), batch_size))
    if not seen.tokens:
        raise UserError("there is nothing to evaluate: the documents hold no text")
    loss = nats / seen.tokens
    return Perplexity(
        loss=loss,
        perplexity=perplexity(loss),
        bits_per_byte=nats / math.log(2) / seen.bytes if seen.bytes else None,
        documents=seen.documents,
        tokens=seen.tokens,
        bytes=seen.bytes,
        sequence_length=length,
        stride=step,
    )


@dataclass(kw_only=True)
class _Seen:
    documents: int = 0
    tokens: int = 0
    bytes: int | None = 0
