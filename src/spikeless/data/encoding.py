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

__all__ = ["Encoded", "encode_documents", "refuse_rowless"]

BATCH_BYTES = 1 << 20
"""How much text is encoded at a time, in UTF-8 [bytes]; while it is, each takes up to a hundred bytes of memory."""
PIECE_CHARACTERS = 1 << 18
"""What a longer document is cut into, so that all cores have some of it [characters]."""
AHEAD = 2
"""Batches that are encoded, or wait for it, while one is written."""
WORD_END = re.compile(r"(?<=\S) (?=\S)|(?<=[^\W_])\n(?=\S)")
"""Where the pre-tokenizers of GPT-2, Llama 3 and their like always cut; after punctuation some keep a newline."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A stretch of documents as token ids: what they begin with before each, an end-of-text id after each.

    Attributes:
        ids: int64.
        documents: how many end here.
        bytes: of their text in UTF-8.
        special_tokens: how many special tokens their text spelled [tokens].
        ends: true if the stretch ends with a document's end.
    """

    ids: np.ndarray
    documents: int
    bytes: int
    special_tokens: int
    ends: bool


@dataclass(frozen=True, kw_only=True)
class _Piece:
    text: str
    bytes: int
    first: bool
    last: bool


def encode_documents(documents: Iterable[str], tokenizer: Tokenizer) -> Iterator[Encoded]:
    """Encode a stream of documents.

    A document longer than a piece is cut in front of single spaces and newlines, where byte-level tokenizers cut too.

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
    batch, size = [], 0
    for piece in chain.from_iterable(map(_pieces, documents)):
        batch.append(piece)
        size += piece.bytes
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _pieces(document: str) -> Iterator[_Piece]:
    start = 0
    while len(document) - start > PIECE_CHARACTERS:
        limit = start + PIECE_CHARACTERS
        space = WORD_END.search(document, limit, limit + PIECE_CHARACTERS)
        stop = space.start() if space else limit
        yield _piece(document[start:stop], first=start == 0, last=False)
        start = stop
    yield _piece(document[start:] if start else document, first=start == 0, last=True)


def _piece(text: str, first: bool, last: bool) -> _Piece:
    return _Piece(text=text, bytes=len(text) if text.isascii() else len(text.encode()), first=first, last=last)


def _encode(batch: list[_Piece], tokenizer: Tokenizer) -> Encoded:
    encoded = tokenizer.encode_batch([piece.text for piece in batch])
    spelled = _special_tokens(encoded, tokenizer)
    for piece, ids in zip(batch, encoded, strict=True):
        if piece.first:
            ids[:0] = tokenizer.reading.beginning
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
        bytes=sum(piece.bytes for piece in batch),
        special_tokens=spelled,
        ends=batch[-1].last,
    )


def _special_tokens(encoded: list[list[int]], tokenizer: Tokenizer) -> int:
    special = tokenizer.special_ids
    if tokenizer.reading.special_tokens == "text" or (len(special) == 1 and tokenizer.reading.special_tokens != "all"):
        return 0
    return sum(not special.isdisjoint(ids) and sum(each in special for each in ids) for ids in encoded)


def refuse_rowless(largest: int, rows: int, tokenizer: Tokenizer, where: str, advice: str) -> None:
    """Refuse text that needs an id beyond a model's table; ids that no text needs may lie there.

    Args:
        largest: the largest id of the text.
        rows: of the table; ids that it takes are below this.
        tokenizer: gave the ids.
        where: the text, for messages.
        advice: what helps where reading special tokens as text does not.

    Raises:
        UserError: naming the token.
    """
    if largest < rows:
        return
    spelled = largest in tokenizer.special_ids - {tokenizer.end_of_text, *tokenizer.reading.beginning}
    if spelled and tokenizer.reading.special_tokens != "text":
        advice = f"with special_tokens=text in the data spec it is read as text; else {advice}"
    raise UserError(
        f"{where} needs the token {tokenizer.id_to_token(largest)!r} (id {largest}), but the model has rows for ids "
        f"below {rows} only; {advice}"
    )
