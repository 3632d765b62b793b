"""JSON lines: an object on every line, plain or compressed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from spikeless.data.corpora import Tally
from spikeless.data.corpora._compressed import decompressed
from spikeless.data.corpora._files import FileCorpus
from spikeless.data.corpora._records import decoded, text_of, well_formed
from spikeless.errors import UserError

__all__ = ["JSONLines"]

LINE_LIMIT_BYTES = 1 << 28
"""A longer line is refused: it is no document, or a few bytes that decompress to gigabytes."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DECODER = json.JSONDecoder(parse_int=float)
"""A whole number of any length is read, and never used."""


@dataclass(frozen=True, kw_only=True)
class JSONLines(FileCorpus):
    """One field of every line; the files may be compressed with gzip or Zstandard, whatever they are called.

    Blank lines are passed over. Text that is blank or null is skipped and counted. Bytes that are not UTF-8
    and lone surrogates become U+FFFD; such lines are counted as `invalid_utf8`.
    """

    usage: ClassVar[str] = "jsonl:GLOB[,field=NAME][,validation=GLOB]"
    kind: ClassVar[str] = "jsonl"

    field: str = "text"
    """The field of an object that holds its text."""

    def identity(self) -> tuple[str, ...]:
        """The kind and the field."""
        return self.kind, self.field

    def read(self, path: Path, tally: Tally) -> Iterator[str]:
        """Stream one file.

        Raises:
            UserError: damaged, or a line is too long, or no JSON object with text in the field.
        """
        with decompressed(path, self.kind) as file:
            number = 0
            while line := file.readline(LINE_LIMIT_BYTES + 1):
                number += 1
                where = f"jsonl: {path}, line {number}"
                if len(line) > LINE_LIMIT_BYTES:
                    raise UserError(f"{where} is longer than {LINE_LIMIT_BYTES >> 20} MiB; give one document a line")
                if number == 1:
                    line = line.removeprefix(BYTE_ORDER_MARK)
                if line and not line.isspace():
                    yield self._document(line, where, tally)

    def _document(self, line: bytes, where: str, tally: Tally) -> str:
        seen = Tally()
        try:
            record = _DECODER.decode(decoded(line, seen).strip())
        except json.JSONDecodeError as error:
            raise UserError(
                f"{where} is not JSON: {error.msg} at column {error.colno}; each line must be one JSON object"
            ) from None
        except RecursionError:
            raise UserError(f"{where} is not JSON that can be read: it is nested too deeply") from None
        if not isinstance(record, dict):
            raise UserError(f"{where} is JSON, but not an object; each line must be one, with a field {self.field!r}")
        document = well_formed(text_of(record, self.field, where), seen)
        if seen:
            tally["invalid_utf8"] += 1
        return document
