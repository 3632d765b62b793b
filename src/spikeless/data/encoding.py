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

from spikeless.data.documents import Document, Kind, Messages, TokenIds, kind_of
from spikeless.data.reading import SpecialTokens
from spikeless.data.tokenizers import Tokenizer
from spikeless.errors import UserError

__all__ = ["Encoded", "encode_document", "encode_documents", "refuse_rowless"]

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

    Nothing is put before messages, where the chat template writes what belongs there, nor before token ids. After them
    end-of-text is put where they do not end with it.

    Attributes:
        ids: int64.
        documents: how many end here.
        bytes: of their text in UTF-8; 0 of token ids, whose text is not known.
        special_tokens: how many special tokens their text spelled [tokens].
        ends: true if the stretch ends with a document's end.
        kind: what the documents were.
        inner_ends: end-of-text ids inside of documents [tokens].
    """

    ids: np.ndarray
    documents: int
    bytes: int
    special_tokens: int
    ends: bool
    kind: Kind
    inner_ends: int


@dataclass(frozen=True, kw_only=True)
class _Piece:
    kind: Kind
    content: str | np.ndarray
    bytes: int
    first: bool
    last: bool


def encode_document(document: Document, tokenizer: Tokenizer) -> tuple[list[int], int | None]:
    """The ids of a document as it is, with nothing put before or after, and its bytes in UTF-8 [bytes].

    The bytes of token ids are not known: None.

    Raises:
        UserError: the tokenizer cannot write these messages, or does not have these ids.
    """
    if isinstance(document, TokenIds):
        _refuse_unknown(document.ids, tokenizer)
        return document.ids.tolist(), None
    text, how = _text_of(document, tokenizer)
    return tokenizer.encode(text, how), len(text.encode())


def encode_documents(documents: Iterable[Document], tokenizer: Tokenizer) -> Iterator[Encoded]:
    """Encode a stream of documents of one kind.

    A document longer than a piece is cut in front of single spaces and newlines, where byte-level tokenizers cut too.

    Raises:
        UserError: the tokenizer cannot write messages, or an id is not in its vocabulary.
    """
    pool, waiting = ThreadPoolExecutor(max_workers=AHEAD), deque()
    try:
        for batch in _batches(documents, tokenizer):
            waiting.append(pool.submit(_encode, batch, tokenizer))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(documents: Iterable[Document], tokenizer: Tokenizer) -> Iterator[list[_Piece]]:
    batch, size = [], 0
    for piece in chain.from_iterable(_pieces(document, tokenizer) for document in documents):
        batch.append(piece)
        size += piece.bytes or len(piece.content)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _pieces(document: Document, tokenizer: Tokenizer) -> Iterator[_Piece]:
    kind = kind_of(document)
    if isinstance(document, TokenIds):
        yield _Piece(kind=kind, content=document.ids, bytes=0, first=True, last=True)
        return
    text, start = _text_of(document, tokenizer)[0], 0
    while len(text) - start > PIECE_CHARACTERS:
        limit = start + PIECE_CHARACTERS
        space = WORD_END.search(text, limit, limit + PIECE_CHARACTERS)
        stop = space.start() if space else limit
        yield _piece(kind, text[start:stop], first=start == 0, last=False)
        start = stop
    yield _piece(kind, text[start:] if start else text, first=start == 0, last=True)


def _piece(kind: Kind, text: str, first: bool, last: bool) -> _Piece:
    size = len(text) if text.isascii() else len(text.encode())
    return _Piece(kind=kind, content=text, bytes=size, first=first, last=last)


def _text_of(document: str | Messages, tokenizer: Tokenizer) -> tuple[str, SpecialTokens | None]:
    """A document as text, and how special tokens in it are read: all of them, where the chat template wrote them."""
    if isinstance(document, Messages):
        return tokenizer.render_chat(document.turns), "all"
    return document, None


def _encode(batch: list[_Piece], tokenizer: Tokenizer) -> Encoded:
    kind, end = batch[0].kind, tokenizer.end_of_text
    how = "all" if kind == "messages" else None
    spelled, rows = 0, [piece.content for piece in batch]
    if kind != "token ids":
        encoded = tokenizer.encode_batch([piece.content for piece in batch if isinstance(piece.content, str)], how)
        spelled = _special_tokens(encoded, tokenizer, how or tokenizer.reading.special_tokens)
        before = tokenizer.reading.beginning if kind == "text" else ()
        rows = [[*before, *ids] if piece.first else ids for piece, ids in zip(batch, encoded, strict=True)]
    closed = [
        [] if not piece.last or (len(row) and row[-1] == end) else [end] for piece, row in zip(batch, rows, strict=True)
    ]
    ids = np.concatenate([np.asarray(each, dtype=np.int64) for pair in zip(rows, closed, strict=True) for each in pair])
    _refuse_unknown(ids, tokenizer, made=kind != "token ids")
    documents = sum(piece.last for piece in batch)
    return Encoded(
        ids=ids,
        documents=documents,
        bytes=sum(piece.bytes for piece in batch),
        special_tokens=spelled,
        ends=batch[-1].last,
        kind=kind,
        inner_ends=int(np.count_nonzero(ids == end)) - documents,
    )


def _refuse_unknown(ids: np.ndarray, tokenizer: Tokenizer, made: bool = False) -> None:
    """Stop at an id that is not in the vocabulary, whether the tokenizer made it or somebody else."""
    if not len(ids) or 0 <= ids.min() <= ids.max() < tokenizer.vocab_size:
        return
    unknown, has = ids.max() if ids.min() >= 0 else ids.min(), f"has {tokenizer.vocab_size} tokens"
    if made:
        raise UserError(f"the tokenizer {tokenizer.spec} gave the id {unknown}, but {has}; it is damaged")
    raise UserError(
        f"the data hold the token id {unknown}, but the tokenizer {tokenizer.spec} {has}; name the tokenizer that made "
        "them with --tokenizer"
    )


def _special_tokens(encoded: list[list[int]], tokenizer: Tokenizer, how: SpecialTokens) -> int:
    special = tokenizer.special_ids
    if how == "text" or (len(special) == 1 and how != "all"):
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
