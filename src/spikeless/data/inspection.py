"""What is in a folder of token shards: counts, frequent and rare tokens, document lengths, samples."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spikeless.data.progress import track
from spikeless.data.shards import Manifest, Shards, Tokens, open_shards
from spikeless.data.split import Part
from spikeless.data.tokenizers import Tokenizer, load_tokenizer
from spikeless.errors import UserError
from spikeless.words import counted

__all__ = ["Inspection", "PartInspection", "TokenCount", "inspect_shards"]

CHUNK_TOKENS = 1 << 20
SAMPLE_TOKENS = 64
QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)
PARTS: tuple[Part, ...] = ("train", "validation")


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
        unseen: how many tokens of the vocabulary never come in it.
        never: some of these, those with the smallest ids.
    """

    manifest: Manifest
    parts: dict[Part, PartInspection]
    head: tuple[TokenCount, ...]
    tail: tuple[TokenCount, ...]
    unseen: int
    never: tuple[TokenCount, ...]


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
    survey = {part: _survey(shards, part, tokenizer, samples) for part in PARTS}
    counts = survey["train"].counts
    order = np.argsort(-counts, kind="stable")
    seen = int(np.count_nonzero(counts))

    def named(tokens: np.ndarray) -> tuple[TokenCount, ...]:
        return tuple(TokenCount(token=int(t), text=tokenizer.decode([t]), count=int(counts[t])) for t in tokens)

    return Inspection(
        manifest=shards.manifest,
        parts={part: _describe(shards, part, survey[part], tokenizer) for part in PARTS},
        head=named(order[: min(top, seen)]),
        tail=named(order[max(0, seen - top) : seen]),
        unseen=tokenizer.vocab_size - seen,
        never=named(order[seen : seen + top]),
    )


@dataclass(frozen=True, kw_only=True)
class _Survey:
    """What one pass over a part found.

    Attributes:
        counts: how often each id comes, int64 [vocab_size].
        lengths: how many documents have each length.
        samples: where some documents begin, and their lengths.
    """

    counts: np.ndarray
    lengths: Counter[int]
    samples: list[tuple[int, int]]


def _survey(shards: Shards, part: Part, tokenizer: Tokenizer, samples: int) -> _Survey:
    """Read a part once; memory does not grow with it.

    Raises:
        UserError: it holds another number of documents than the manifest says.
    """
    tokens: Tokens = getattr(shards, part)
    said, inner = getattr(shards.manifest, part).documents, getattr(shards.manifest, part).inner_ends
    wanted = np.unique(np.linspace(0, max(said + inner - 1, 0), samples).round().astype(np.int64))
    survey = _Survey(counts=np.zeros(tokenizer.vocab_size, dtype=np.int64), lengths=Counter(), samples=[])
    documents = begin = 0
    for start in track(range(0, len(tokens), CHUNK_TOKENS), f"reading {part} tokens"):
        chunk = tokens.read(start, min(CHUNK_TOKENS, len(tokens) - start))
        survey.counts[:] += np.bincount(chunk, minlength=tokenizer.vocab_size)
        ends = np.flatnonzero(chunk == tokenizer.end_of_text) + start + 1
        begins = np.concatenate([[begin], ends[:-1]]) if len(ends) else ends
        lengths, times = np.unique(ends - begins, return_counts=True)
        survey.lengths.update(dict(zip(lengths.tolist(), times.tolist(), strict=True)))
        here = wanted[(wanted >= documents) & (wanted < documents + len(ends))] - documents
        survey.samples.extend((int(begins[i]), int(ends[i] - begins[i])) for i in here)
        documents, begin = documents + len(ends), int(ends[-1]) if len(ends) else begin
    if (documents, begin) != (said + inner, len(tokens)):
        raise UserError(
            f"the {part} part holds {counted(documents, 'document')} and "
            f"{counted(len(tokens) - begin, 'token')} behind them, but the "
            f"manifest says {counted(said, 'document')}; write the shards anew"
        )
    return survey


def _describe(shards: Shards, part: Part, survey: _Survey, tokenizer: Tokenizer) -> PartInspection:
    tokens: Tokens = getattr(shards, part)
    said = getattr(shards.manifest, part)
    return PartInspection(
        documents=said.documents,
        tokens=said.tokens,
        bytes=said.bytes,
        skipped=said.skipped,
        lengths=_quantiles(survey.lengths),
        samples=tuple(
            tokenizer.decode(tokens.read(start, min(length - 1, SAMPLE_TOKENS))) for start, length in survey.samples
        ),
    )


def _quantiles(lengths: Counter[int]) -> tuple[int, ...]:
    """The lengths at `QUANTILES`, each that of a document; none if there are no documents."""
    if not lengths:
        return ()
    values, counts = (np.array(each) for each in zip(*sorted(lengths.items()), strict=True))
    upto = np.cumsum(counts)
    places = np.rint(np.array(QUANTILES) * (upto[-1] - 1))
    return tuple(int(each) for each in values[np.searchsorted(upto, places, side="right")])
