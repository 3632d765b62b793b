"""What corpora of local files share: patterns, validation files, hashes, skipping what is blank."""

import glob
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from spikeless.data.corpora._hints import of_folder, other_format, similar_path
from spikeless.data.documents import Document, Tally, kept
from spikeless.errors import UserError
from spikeless.files import content_hash, sha256
from spikeless.words import counted

__all__ = ["FileCorpus", "file_hash"]


@dataclass(frozen=True, kw_only=True)
class FileCorpus(ABC):
    """Documents from the files that a pattern matches, in the order of their paths.

    With `validation`, the files that match it are the validation documents, and no others are split off; a
    file that matches both is validation only.
    """

    usage: ClassVar[str]
    kind: ClassVar[str]
    """Its name in a spec."""

    files: str
    """Pattern of the files; `**` matches folders at any depth."""

    validation: str | None = None
    """Pattern of the validation files."""

    @abstractmethod
    def read(self, path: Path, tally: Tally) -> Iterator[Document | None]:
        """Stream the documents of one file, blank ones too, None for null; what is repaired is counted in `tally`.

        Raises:
            UserError: the file is not what it should be; an `OSError` needs no translation.
        """

    def identity(self) -> tuple[str, ...]:
        """What decides the documents besides the files' content."""
        return (self.kind,)

    def documents(self, tally: Tally | None = None) -> Iterator[Document]:
        """Stream the documents for training.

        Raises:
            UserError: no file matches, a file cannot be read or is not of its kind, or all are blank.
        """
        return self._documents(self._training_paths(), self.files, tally)

    def validation_documents(self, tally: Tally | None = None) -> Iterator[Document] | None:
        """Stream the documents of the validation files; None without a `validation` pattern.

        Raises:
            UserError: as for `documents`.
        """
        return (
            None if self.validation is None else self._documents(self._match(self.validation), self.validation, tally)
        )

    def fingerprint(self) -> str:
        """Identify the content by the hash of every file as it lies on disk, in order; names do not matter.

        Raises:
            UserError: no file matches, or a file cannot be read.
        """
        validation = [] if self.validation is None else self._match(self.validation)
        hashes = [file_hash(path, self.kind) for path in self._training_paths()]
        held_out = [file_hash(path, self.kind) for path in validation]
        return content_hash(*self.identity(), *hashes, "validation", *held_out)

    def selection(self) -> str:
        """How many files are read.

        Raises:
            UserError: no file matches.
        """
        held_out = "" if self.validation is None else f", {len(self._match(self.validation)):,} for validation"
        return counted(len(self._training_paths()), "file") + held_out

    def _training_paths(self) -> list[Path]:
        paths = self._match(self.files)
        if self.validation is None:
            return paths
        held_out = {path.resolve() for path in self._match(self.validation)}
        kept = [path for path in paths if path.resolve() not in held_out]
        if not kept:
            raise UserError(
                f"{self.kind}: every file that matches {self.files!r} is a validation file; narrow validation="
            )
        return kept

    def _documents(self, paths: list[Path], pattern: str, tally: Tally | None) -> Iterator[Document]:
        tally, empty = Tally() if tally is None else tally, True
        for document in kept(self._read(paths, tally), tally, f"{self.kind}: {pattern}"):
            empty = False
            yield document
        if empty:
            raise UserError(
                f"{self.kind}: {pattern!r} matches {len(paths)} file(s), all of them blank; give files with text"
            )

    def _read(self, paths: list[Path], tally: Tally) -> Iterator[Document | None]:
        for path in paths:
            try:
                yield from self.read(path, tally)
            except OSError as error:
                raise UserError(f"{self.kind}: cannot read {path}: {error.strerror or error}") from None

    def _match(self, pattern: str) -> list[Path]:
        # not Path.glob, which takes no absolute pattern
        found = glob.glob(os.path.expanduser(pattern), recursive=True)  # noqa: PTH111, PTH207
        once = {path.resolve(): path for path in sorted(map(Path, found), reverse=True) if path.is_file()}
        paths = sorted(once.values())  # a link may lead to the same file again
        if not paths and Path(os.path.expanduser(pattern)).is_dir():  # noqa: PTH111
            held = of_folder(pattern)
            right = f"; write '{held}' for the files below it" if held else " that holds nothing that can be read"
            raise UserError(f"{self.kind}: {pattern} is a folder{right}")
        if not paths:
            raise UserError(
                f"{self.kind}: no file matches {pattern!r} in {Path.cwd()}{similar_path(pattern)}; give a file or a "
                f"pattern, quoted for the shell's sake: '{self.usage}'"
            )
        if other := other_format(paths, self.kind):
            raise UserError(
                f"{self.kind}: {paths[0]} is named as {other} data; write '{other}:{pattern}', or rename it if that is "
                "not what it holds"
            )
        return paths


def file_hash(path: Path, kind: str) -> str:
    """The SHA-256 of a file's content.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return sha256(path)
    except OSError as error:
        raise UserError(f"{kind}: cannot read {path}: {error.strerror or error}") from None
