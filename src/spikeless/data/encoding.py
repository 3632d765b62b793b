"""Documents to token ids: read, encoded and handed on at the same time, a bounded stretch of text at a time.

The batch encoding of `tokenizers` uses all cores and lets other threads run; while it works on some batches the next
ones are read. Batches come out in their order, so the ids do not depend on how many threads there are.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np

from spikeless.data.tokenizers import Tokenizer
from spikeless.errors import UserError

__all__ = ["Encoded", "encode_documents"]

BATCH_CHARACTERS = 1 << 20
"""How much text is encoded at a time [characters]; the library takes about forty bytes of memory for each."""
AHEAD = 2
"""Batches that are encoded, or wait for it, while one is written."""
WORD_END = re.compile(r"(?<=\S)[ \n](?=\S)")


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A stretch of documents as token ids, an end-of-text id after each.

    Attributes:
        ids: int64.
        documents: how many end here.
        bytes: of their text in UTF-8.
        ends: true if the stretch ends with a document's end.
    """

    ids: np.ndarray
    documents: int
    bytes: int
    ends: bool


@dataclass(frozen=True, kw_only=True)
class _Piece:
    text: str
    last: bool


def encode_documents(documents: Iterable[str], tokenizer: Tokenizer) -> Iterator[Encoded]:
    """Encode a stream of documents.

    A document longer than a batch is encoded in pieces, cut in front of a single space or newline, where byte-level
    tokenizers cut too.

    Raises:
        UserError: the tokenizer gives an id that is not in its vocabulary.
    """
    pool, waiting = ThreadPoolExecutor(max_workers=AHEAD), deque()
    try:
        for batch in _batches(documents):
            waiting.append(pool.submit(_encode, batch, tokenizer))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(documents: Iterable[str]) -> Iterator[list[_Piece]]:
    batch, characters = [], 0
    for piece in chain.from_iterable(map(_pieces, documents)):
        batch.append(piece)
        characters += len(piece.text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _pieces(document: str) -> Iterator[_Piece]:
    start = 0
    while len(document) - start > BATCH_CHARACTERS:
        limit = start + BATCH_CHARACTERS
        space = WORD_END.search(document, limit, limit + BATCH_CHARACTERS)
        stop = space.start() if space else limit
        yield _Piece(text=document[start:stop], last=False)
        start = stop
    yield _Piece(text=document[start:] if start else document, last=True)


def _encode(batch: list[_Piece], tokenizer: Tokenizer) -> Encoded:
    encoded = tokenizer.encode_batch([piece.text for piece in batch])
    for piece, ids in zip(batch, encoded, strict=True):
        if piece.last:
            ids.append(tokenizer.end_of_text)
    ids = np.fromiter(chain.from_iterable(encoded), np.int64, sum(map(len, encoded)))
    if len(ids) and not 0 <= ids.min() <= ids.max() < tokenizer.vocab_size:
        raise UserError(
            f"the tokenizer {tokenizer.spec} gave the id {ids.max() if ids.min() >= 0 else ids.min()}, but has "
            f"{tokenizer.vocab_size} tokens; it is damaged"
        )
    return Encoded(
        ids=ids,
        documents=sum(piece.last for piece in batch),
        bytes=sum(len(piece.text.encode()) for piece in batch),
        ends=batch[-1].last,
    )
