"""Which documents are for validation: decided by each document's own content, never by its place."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from spikeless.data.corpora import Corpus
from spikeless.data.documents import Document, Messages, Tally, TokenIds, content_of
from spikeless.errors import UserError
from spikeless.files import content_hash

__all__ = ["VALIDATION_FRACTION", "Part", "Split"]

Part = Literal["train", "validation"]

VALIDATION_FRACTION = 0.04
"""About 100 thousand tokens of the default corpus at `bpe:2048` [dimensionless]."""
RULE = "split-1"
HASHES = 1 << 64


@dataclass(frozen=True, kw_only=True)
class Split:
    """A corpus in two disjoint parts.

    A document is for validation if the hash of its content, as a fraction, is below `validation_fraction`: so
    it stays where it is when others come, go or change places, and equal documents are never on both sides.
    A corpus so small that this leaves one side empty gives it the document nearest to the threshold: the one
    with the smallest hash becomes validation, or the one with the largest is kept for training. A corpus of
    one document has its tail split off, at a blank line if there is one, else at white space. A corpus with
    validation documents of its own keeps them, and the fraction is not used.

    Raises:
        UserError: the fraction is not between 0 and 1.
    """

    corpus: Corpus
    validation_fraction: float

    def __post_init__(self):
        if not 0 < self.validation_fraction < 1:
            raise UserError(f"validation_fraction is {self.validation_fraction}; it must lie between 0 and 1")

    def documents(self, part: Part, tally: Tally | None = None) -> Iterator[Document]:
        """Stream one part. Where one is split off, what is skipped counts for training.

        Raises:
            UserError: the corpus is empty, or its one document cannot be cut.
        """
        counted = tally if part == "train" else None  # both parts are read from the same documents
        own = self.corpus.validation_documents(tally if part == "validation" else None)
        if own is not None:
            yield from own if part == "validation" else self.corpus.documents(tally)
        elif self._threshold is None:
            for document in self.corpus.documents(counted):
                yield _cut(document, self.validation_fraction)[part == "validation"]
        else:
            for document in self.corpus.documents(counted):
                if (_hash(document) < self._threshold) == (part == "validation"):
                    yield document

    def fingerprint(self) -> str:
        """Identify both parts' content."""
        own = self.corpus.validation_documents() is not None
        return content_hash(RULE, self.corpus.fingerprint(), "own" if own else repr(self.validation_fraction))

    @cached_property
    def _threshold(self) -> int | None:
        """Hashes below this are validation; None if there is one document. Reads until each side has one."""
        threshold = round(self.validation_fraction * HASHES)
        lowest, highest = HASHES, -1
        for document in self.corpus.documents():
            value = _hash(document)
            lowest, highest = min(lowest, value), max(highest, value)
            if lowest < threshold <= highest:
                return threshold
        if highest < 0:
            raise UserError(f"the corpus {self.corpus} holds no text; give one that does")
        if lowest == highest:
            return None
        return lowest + 1 if lowest >= threshold else highest


def _hash(document: Document) -> int:
    return int.from_bytes(hashlib.sha256(content_of(document)).digest()[:8], "big")


def _cut(document: Document, fraction: float) -> tuple[Document, Document]:
    """Head and tail of a document; the tail is at least `fraction` of it, and as little more as can be."""
    if isinstance(document, Messages):
        raise UserError(
            "the corpus is one chat, which cannot be cut; give a second one, or a file with validation=GLOB"
        )
    if isinstance(document, TokenIds):
        cut = min(round(len(document.ids) * (1 - fraction)), len(document.ids) - 1)
        return TokenIds(document.ids[:cut]), TokenIds(document.ids[cut:])
    length = len(document.rstrip())
    target = min(round(length * (1 - fraction)), length - 1)
    blank_line = document.rfind("\n\n", max(round(length * (1 - 2 * fraction)), 1), target + 1)
    space = max(document.rfind(character, 1, target + 1) for character in " \n\t")
    cut = blank_line if blank_line > 0 else space
    if cut < 1 or document[:cut].isspace():
        raise UserError(
            "the corpus is one document, and it has no white space at which a tail could be split off for "
            "validation; give a second file, or one with validation=GLOB"
        )
    return document[:cut], document[cut:]
