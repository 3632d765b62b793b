"""Corpora: where text comes from. One source per file; the file's name is its name in a data spec."""

import re
from collections.abc import Iterator
from typing import ClassVar, Protocol, runtime_checkable

from spikeless.config import names_in
from spikeless.data.documents import Document, Tally
from spikeless.data.spec import parse_spec
from spikeless.errors import UserError

__all__ = ["Corpus", "parse_corpus"]

ROOM = "data.corpora"


@runtime_checkable
class Corpus(Protocol):
    """A source of documents that can be read again and again, always in the same order.

    A document is text that UTF-8 can encode and that is not blank, or the messages of a chat, or token ids; a corpus
    holds one kind. It is a frozen dataclass whose first field takes the REST of its spec.
    """

    usage: ClassVar[str]
    """How its spec is written."""

    def documents(self, tally: Tally | None = None) -> Iterator[Document]:
        """Stream the documents: for training, or for both where validation is to be split off.

        Args:
            tally: what is skipped or repaired is counted here, as it happens.
        """
        ...

    def validation_documents(self, tally: Tally | None = None) -> Iterator[Document] | None:
        """Stream the corpus's own validation documents; None if some are to be split off instead."""
        ...

    def fingerprint(self) -> str:
        """Identify the content: the same for the same documents, on any machine."""
        ...

    def selection(self) -> str:
        """What is read and what is not, as far as the spec does not say it; one line, perhaps empty."""
        ...


def parse_corpus(spec: str) -> Corpus:
    """The corpus that a data spec `NAME[:REST][,key=value]…` names, such as `pydocs` or `text:notes/**/*.md`.

    Raises:
        UserError: not of this form, or an unknown name or key; the message names the nearest ones.
    """
    names, name = names_in(ROOM), re.split("[:,]", spec.strip(), maxsplit=1)[0].strip()
    if (name and name not in names) or spec.strip().startswith("hf://"):
        from spikeless.data.corpora._hints import likely_spec  # which looks at formats, and they at this

        raise UserError(f"the data {spec!r} name no corpus; {likely_spec(spec, names)}")
    return parse_spec(spec, room=ROOM, what="corpus")
