"""What a document is: text, the messages of a chat, or token ids; and which ones are passed over."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from spikeless.errors import UserError
from spikeless.words import counted

__all__ = [
    "Document",
    "Kind",
    "Messages",
    "Tally",
    "TokenIds",
    "content_of",
    "kept",
    "kind_of",
    "loss_of",
    "tally_text",
    "texts_to_learn",
]

Tally = Counter[str]
"""What a corpus skipped or repaired while it was read, by kind: "null", "invalid_utf8" [documents]."""

SKIPPED = ("null", "blank")
"""The kinds that are skipped; the others are repaired."""
LOUD = 0.05
"""From this share of the documents on, what was skipped or repaired is warned of."""


@dataclass(frozen=True, slots=True)
class Messages:
    """A chat, which becomes text through the tokenizer's chat template.

    Attributes:
        turns: each with its `role` and `content`, and what else the template may ask for.
    """

    turns: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, eq=False)
class TokenIds:
    """A document that was tokenized before.

    Attributes:
        ids: int64 [T].
    """

    ids: np.ndarray


Document = str | Messages | TokenIds

Kind = Literal["text", "messages", "token ids"]
_KINDS: dict[type, Kind] = {str: "text", Messages: "messages", TokenIds: "token ids"}


def kind_of(document: Document) -> Kind:
    """What a document is, in words."""
    return _KINDS[type(document)]


def content_of(document: Document) -> bytes:
    """Bytes that are the same for equal documents and no others of their kind."""
    if isinstance(document, str):
        return document.encode("utf-8")
    if isinstance(document, Messages):
        return json.dumps(document.turns, sort_keys=True, default=dict).encode("utf-8")
    return document.ids.tobytes()


def kept(documents: Iterable[Document | None], tally: Tally, where: str) -> Iterator[Document]:
    """The documents that hold something; those that are null or blank are counted.

    Raises:
        UserError: documents of several kinds.
    """
    first = None
    for document in documents:
        if document is None or _is_blank(document):
            tally["null" if document is None else "blank"] += 1
            continue
        first = first or type(document)
        if type(document) is not first:
            raise UserError(
                f"{where} holds {_KINDS[type(document)]} behind documents that are {_KINDS[first]}; give one kind"
            )
        yield document


def texts_to_learn(documents: Iterable[Document]) -> Iterator[str]:
    """The documents as text from which a tokenizer can be learnt.

    Raises:
        UserError: they are messages or token ids.
    """
    why = {"messages": "has no chat template to write them with", "token ids": "would not be the one that made them"}
    for document in documents:
        if not isinstance(document, str):
            raise UserError(
                f"the data are {kind_of(document)}, and a tokenizer that is learnt from them {why[kind_of(document)]}; "
                "name the tokenizer that they are for with --tokenizer hf:NAME_OR_DIR"
            )
        yield document


def tally_text(tally: Mapping[str, int]) -> str:
    """A tally in words: "null 855, invalid_utf8 3"."""
    return ", ".join(f"{kind} {count:,}" for kind, count in sorted(tally.items())) or "none"


def loss_of(tally: Mapping[str, int], kept: int) -> str | None:
    """What to warn of: "855 of 900 documents (95.0 %) were skipped or repaired: null 855"; None if it is little.

    Args:
        tally: what was skipped or repaired [documents].
        kept: the documents that were not skipped.
    """
    changed, read = sum(tally.values()), kept + sum(tally.get(kind, 0) for kind in SKIPPED)
    if not read or changed < LOUD * read:
        return None
    share = f"{changed:,} of {counted(read, 'document')} ({100 * changed / read:.1f} %)"
    return f"{share} were skipped or repaired: {tally_text(tally)}"


def _is_blank(document: Document) -> bool:
    if isinstance(document, str):
        return not document or document.isspace()
    return not len(document.turns if isinstance(document, Messages) else document.ids)
