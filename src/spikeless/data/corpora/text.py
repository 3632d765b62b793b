"""Text files of the user's own."""

import codecs
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TextIO

from spikeless.data.corpora._compressed import decompressed
from spikeless.data.corpora._files import FileCorpus
from spikeless.data.documents import Tally
from spikeless.errors import UserError
from spikeless.files import CHUNK_BYTES

__all__ = ["Text"]

NEWLINE = b"\n"
WHOLE_BYTES = 1 << 20
"""A file up to this size is one document [bytes]."""
PIECE_CHARACTERS = 1 << 16
"""A larger one is cut at the first blank line after this many [characters]."""
PIECE_LIMIT_CHARACTERS = 1 << 18
"""Where no blank line comes, it is cut after this many, at the end of a line if there is one [characters]."""


@dataclass(frozen=True, kw_only=True)
class Text(FileCorpus):
    """UTF-8 text files, plain or compressed with gzip or Zstandard, in the order of their paths.

    A file up to 1 MiB is one document; a larger one is cut at blank lines into consecutive documents of about
    64 KiB, so a corpus of one large file can still be split by document.
    """

    usage: ClassVar[str] = "text:GLOB[,validation=GLOB]"
    kind: ClassVar[str] = "text"

    def identity(self) -> tuple[str, ...]:
        """The kind, and how lines end: as they do in the file."""
        return self.kind, "line ends kept"

    def read(self, path: Path, tally: Tally) -> Iterator[str]:
        """Stream one file.

        Raises:
            UserError: it is not UTF-8 text, or holds a NUL byte; nothing is replaced.
        """
        try:
            with decompressed(path, self.kind) as file:
                head = file.read(WHOLE_BYTES + 1)
            if len(head) <= WHOLE_BYTES:
                yield _checked(head.decode("utf-8-sig"), path)
                return
            with decompressed(path, self.kind) as file:
                text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
                for piece in _pieces(text):
                    yield _checked(piece, path)
                text.detach()
        except UnicodeDecodeError:
            raise _fault(path) from None


def _checked(text: str, path: Path) -> str:
    if "\0" in text:
        raise _fault(path)
    return text


def _pieces(file: TextIO) -> Iterator[str]:
    lines, size = [], 0
    while line := file.readline(PIECE_LIMIT_CHARACTERS):
        lines.append(line)
        size += len(line)
        if size >= PIECE_LIMIT_CHARACTERS or (size >= PIECE_CHARACTERS and line.isspace()):
            yield "".join(lines)
            lines, size = [], 0
    yield "".join(lines)


def _fault(path: Path) -> UserError:
    """What to say of a file that is not text: where it stops being text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    position, line, what = 0, 1, "not UTF-8 text"
    with decompressed(path, Text.kind) as file:
        for chunk in itertools.chain(iter(lambda: file.read(CHUNK_BYTES), b""), [b""]):
            fault = _first_fault(chunk, decoder)
            if fault:
                at, kind = fault
                what = f"{kind} at byte {position + at} (line {line + chunk[: max(at, 0)].count(NEWLINE)})"
                break
            position += len(chunk)
            line += chunk.count(NEWLINE)
    return UserError(f"text: {path}: {what}; give UTF-8 text files, or convert it with iconv -t UTF-8")


def _first_fault(chunk: bytes, decoder: codecs.IncrementalDecoder) -> tuple[int, str] | None:
    """Offset and kind of the first byte that is not text; it is negative for one of an earlier chunk."""
    faults = [(chunk.index(b"\0"), "a NUL byte, so a binary file,")] if b"\0" in chunk else []
    try:
        decoder.decode(chunk, final=not chunk)
    except UnicodeDecodeError as error:
        faults.append((error.start - (len(error.object) - len(chunk)), "invalid UTF-8"))
    return min(faults, default=None)
