"""What is in a folder of token shards: counts, frequent and rare tokens, document lengths, samples."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spikeless.data.progress import track
from spikeless.data.shards import Manifest, Shards, Tokens, open_shards
from spikeless.data.split import Part
from spikeless.data.tokenizers import Tokenizer, load_tokenizer
from spikeless.errors import UserError

__all__ = ["Inspection", "PartInspection", "TokenCount", "inspect_shards"]

CHUNK_TOKENS = 1 << 20
SAMPLE_TOKENS = 64
QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)


@dataclass(frozen=True, kw_only=True)
class TokenCount:
    """How often a token comes."""

    token: int
    text: str
    count: int


@dataclass(frozen=True, kw_only=True)
class PartInspection:
    """The training or the validation part.

    Attributes:
        documents: how many.
        tokens: end-of-text included.
        bytes: of the text in UTF-8.
        skipped: what the corpus skipped or repaired, by kind [documents].
        lengths: smallest, 10 %, median, 90 % and largest document, end-of-text included [tokens].
        samples: how some documents begin.
    """

    documents: int
    tokens: int
    bytes: int
    skipped: dict[str, int]
    lengths: tuple[int, ...]
    samples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A folder of token shards.

    Attributes:
        manifest: what its manifest says.
        parts: both parts.
        head: the most frequent tokens of the training part.
        tail: the least frequent ones that come at all.
        unseen: tokens of the vocabulary that never come in it.
    """

    manifest: Manifest
    parts: dict[Part, PartInspection]
    head: tuple[TokenCount, ...]
    tail: tuple[TokenCount, ...]
    unseen: int


def inspect_shards(folder: Path, *, verify: bool = False, top: int = 10, samples: int = 3) -> Inspection:
    """Read all tokens of a folder, a stretch at a time, and say what they are.

    Args:
        folder: of one source.
        verify: check every file's hash too.
        top: how many of the most and least frequent tokens.
        samples: how many documents of each part, evenly spread.

    Raises:
        UserError: it is no such folder, or damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give one of `spikeless data prepare`")
    tokenizer = load_tokenizer(folder)
    shards = open_shards(folder, tokenizer, verify=verify)
    counts = _counts(shards.train, tokenizer.vocab_size)
    order = np.argsort(-counts, kind="stable")
    seen = int(np.count_nonzero(counts))

    def named(tokens: np.ndarray) -> tuple[TokenCount, ...]:
        return tuple(TokenCount(token=int(t), text=tokenizer.decode([t]), count=int(counts[t])) for t in tokens)

    return Inspection(
        manifest=shards.manifest,
        parts={part: _inspect_part(shards, part, tokenizer, samples) for part in ("train", "validation")},
        head=named(order[: min(top, seen)]),
        tail=named(order[max(0, seen - top) : seen]),
        unseen=tokenizer.vocab_size - seen,
    )


def _inspect_part(shards: Shards, part: Part, tokenizer: Tokenizer, samples: int) -> PartInspection:
    tokens: Tokens = getattr(shards, part)
    said = getattr(shards.manifest, part)
    ends = np.concatenate([*_ends(tokens, tokenizer.end_of_text, part), np.empty(0, dtype=np.int64)])
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    lengths = ends + 1 - starts
    chosen = np.unique(np.linspace(0, len(ends) - 1, samples).round().astype(int)) if len(ends) else []
    texts = [tokenizer.decode(tokens.read(int(starts[i]), min(int(lengths[i]) - 1, SAMPLE_TOKENS))) for i in chosen]
    return PartInspection(
        documents=said.documents,
        tokens=said.tokens,
        bytes=said.bytes,
        skipped=said.skipped,
        lengths=tuple(int(each) for each in np.quantile(lengths, QUANTILES, method="nearest")) if len(ends) else (),
        samples=tuple(texts),
    )


def _chunks(tokens: Tokens) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(tokens), CHUNK_TOKENS):
        yield start, tokens.read(start, min(CHUNK_TOKENS, len(tokens) - start))


def _counts(tokens: Tokens, vocab_size: int) -> np.ndarray:
    """How often each id comes.

    Raises:
        UserError: an id is beyond the vocabulary.
    """
    counts = np.zeros(vocab_size, dtype=np.int64)
    total = -(-len(tokens) // CHUNK_TOKENS)
    for _, chunk in track(_chunks(tokens), "counting tokens", total):
        if chunk.max() >= vocab_size:
            raise UserError(f"the shards hold the id {chunk.max()}, but the vocabulary has {vocab_size} tokens")
        counts += np.bincount(chunk, minlength=vocab_size)
    return counts


def _ends(tokens: Tokens, end_of_text: int, part: Part) -> Iterator[np.ndarray]:
    """Where documents end, chunk by chunk."""
    total = -(-len(tokens) // CHUNK_TOKENS)
    for start, chunk in track(_chunks(tokens), f"finding {part} documents", total):
        yield np.flatnonzero(chunk == end_of_text) + start
