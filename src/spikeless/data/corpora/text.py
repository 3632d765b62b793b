"""Text files of the user's own."""

import codecs
import glob
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TextIO

from spikeless.data.corpora import Tally
from spikeless.errors import UserError
from spikeless.files import CHUNK_BYTES, content_hash, sha256

__all__ = ["Text"]

NEWLINE = b"\n"
WHOLE_BYTES = 1 << 20
"""A file up to this size is one document [bytes]."""
PIECE_CHARACTERS = 1 << 16
"""A larger one is cut at the first blank line after this many [characters]."""
PIECE_LIMIT_CHARACTERS = 1 << 18
"""Where no blank line comes, it is cut after this many, at the end of a line if there is one [characters]."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """UTF-8 text files, in the order of their paths.

    A file up to 1 MiB is one document; a larger one is cut at blank lines into consecutive documents of about
    64 KiB, so a corpus of one large file can still be split by document. With `validation`, the files that
    match it are the validation documents, and no others are split off; a file that matches both is
    validation only.
    """

    usage: ClassVar[str] = "text:GLOB[,validation=GLOB]"

    files: str
    """Pattern of the files; `**` matches folders at any depth."""

    validation: str | None = None
    """Pattern of the validation files."""

    def documents(self, tally: Tally | None = None) -> Iterator[str]:
        """Stream the documents for training.

        Raises:
            UserError: no file matches, a file cannot be read or is not UTF-8 text, or all are blank.
        """
        return self._documents(self._training_paths(), self.files, tally)

    def validation_documents(self, tally: Tally | None = None) -> Iterator[str] | None:
        """Stream the documents of the validation files; None without a `validation` pattern.

        Raises:
            UserError: as for `documents`.
        """
        return None if self.validation is None else self._documents(_match(self.validation), self.validation, tally)

    def fingerprint(self) -> str:
        """Identify the content by the hash of every file, in order; names and folders do not matter.

        Raises:
            UserError: no file matches, or a file cannot be read.
        """
        validation = [] if self.validation is None else _match(self.validation)
        hashes = [_hash(path) for path in self._training_paths()]
        return content_hash("text", *hashes, "validation", *(_hash(path) for path in validation))

    def _training_paths(self) -> list[Path]:
        paths = _match(self.files)
        if self.validation is None:
            return paths
        held_out = {path.resolve() for path in _match(self.validation)}
        kept = [path for path in paths if path.resolve() not in held_out]
        if not kept:
            raise UserError(f"text: every file that matches {self.files!r} is a validation file; narrow validation=")
        return kept

    def _documents(self, paths: list[Path], pattern: str, tally: Tally | None) -> Iterator[str]:
        empty = True
        for path in paths:
            for document in _read(path):
                if document and not document.isspace():
                    empty = False
                    yield document
                elif tally is not None:
                    tally["blank"] += 1
        if empty:
            raise UserError(f"text: {pattern!r} matches {len(paths)} file(s), all of them blank; give files with text")


def _match(pattern: str) -> list[Path]:
    # not Path.glob, which takes no absolute pattern
    found = glob.glob(str(Path(pattern).expanduser()), recursive=True)  # noqa: PTH207
    paths = sorted(path for path in map(Path, found) if path.is_file())
    if not paths:
        raise UserError(
            f"text: no file matches {pattern!r} in {Path.cwd()}; "
            "give a file or a pattern such as 'text:notes/**/*.txt' (quoted, for the shell's sake)"
        )
    return paths


def _hash(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise UserError(f"text: cannot read {path}: {error.strerror or error}") from None


def _read(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            pieces = [file.read()] if path.stat().st_size <= WHOLE_BYTES else _pieces(file)
            for piece in pieces:
                if "\0" in piece:
                    raise _fault(path)
                yield piece
    except UnicodeDecodeError:
        raise _fault(path) from None
    except OSError as error:
        raise UserError(f"text: cannot read {path}: {error.strerror or error}") from None


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
    with path.open("rb") as file:
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
