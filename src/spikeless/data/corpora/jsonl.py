"""JSON: an object on every line, or one array of objects; plain or compressed."""

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from spikeless.data.corpora._compressed import decompressed
from spikeless.data.corpora._records import RECORD_KEYS, RecordCorpus
from spikeless.errors import UserError

__all__ = ["JSONLines"]

LINE_LIMIT_BYTES = 1 << 28
"""A longer line is refused: it is no document, or a few bytes that decompress to gigabytes."""
CHUNK_BYTES = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
ENCODING, ERRORS = "utf-8", "surrogateescape"
"""Bytes that are not UTF-8 become lone surrogates, and are counted where they are in a document."""
EXACT_DIGITS = 18
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder(parse_int=lambda digits: int(digits) if len(digits) <= EXACT_DIGITS else float(digits))
"""A whole number of any length is read; one of more digits is no token id."""


@dataclass(frozen=True, kw_only=True)
class JSONLines(RecordCorpus):
    """Records from every line, or from a file's one array; compressed with gzip or Zstandard or not, whatever the name.

    Blank lines are passed over. Text that is blank or null is skipped and counted. Bytes that are not UTF-8
    and lone surrogates become U+FFFD; such documents are counted as `invalid_utf8`.
    """

    usage: ClassVar[str] = f"jsonl:GLOB{RECORD_KEYS}[,validation=GLOB]"
    kind: ClassVar[str] = "jsonl"

    def records(self, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Stream one file.

        Raises:
            UserError: damaged, or a line is too long, or is no JSON object.
        """
        with decompressed(path, self.kind) as file:
            line, number, begun = file.readline(LINE_LIMIT_BYTES + 1).removeprefix(BYTE_ORDER_MARK), 1, False
            while line:
                where = f"jsonl: {path}, line {number}"
                if not begun and line.lstrip().startswith(b"["):
                    yield from _array(line, file, path)
                    return
                if len(line) > LINE_LIMIT_BYTES:
                    raise UserError(f"{where} is longer than {LINE_LIMIT_BYTES >> 20} MiB; give one document a line")
                if not line.isspace():
                    begun = True
                    yield where, _record(line, where)
                line, number = file.readline(LINE_LIMIT_BYTES + 1), number + 1


def _record(line: bytes, where: str) -> Mapping[str, Any]:
    try:
        record = _DECODER.decode(line.decode(ENCODING, ERRORS).strip())
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where} is not JSON: {error.msg} at column {error.colno}; each line must be one JSON object, "
            "or the file one array of objects"
        ) from None
    except RecursionError:
        raise UserError(f"{where} is not JSON that can be read: it is nested too deeply") from None
    return _object(record, where, "each line must be one")


def _array(head: bytes, file: BinaryIO, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The elements of an array; memory holds one of them, and what is read ahead."""
    rest = _Ahead(head.lstrip()[1:], file)
    number, mark = 0, rest.next_character()
    while mark != "]":
        number += 1
        where = f"jsonl: {path}, element {number} of the array"
        if number > 1:
            if mark != ",":
                raise UserError(f"{where} does not follow a comma, but {mark or 'the end of the file'}; fetch it anew")
            rest.skip(1)
        yield where, _object(rest.value(where), where, "each element must be one")
        mark = rest.next_character()
    rest.skip(1)
    if mark := rest.next_character():
        raise UserError(f"jsonl: {path} goes on with {mark!r} behind its array; give one array, or an object a line")


class _Ahead:
    """Text that is read ahead as far as a JSON value needs it."""

    def __init__(self, head: bytes, file: BinaryIO):
        self._decode = codecs.getincrementaldecoder(ENCODING)(ERRORS).decode
        self._file, self._text, self._at = file, self._decode(head), 0

    def next_character(self) -> str:
        """The first character that is no white space; it stays. Empty at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore
            if self._at < len(self._text) or not self._more(CHUNK_BYTES):
                return self._text[self._at : self._at + 1]

    def skip(self, count: int) -> None:
        """Go on by so many characters."""
        self._at += count

    def value(self, where: str) -> Any:
        """The next value.

        Raises:
            UserError: it is not JSON, or too long.
        """
        self.next_character()
        wanted = CHUNK_BYTES
        while True:
            try:
                value, self._at = _DECODER.raw_decode(self._text, self._at)
                return value
            except RecursionError:
                raise UserError(f"{where} is not JSON that can be read: it is nested too deeply") from None
            except json.JSONDecodeError as error:
                if wanted > LINE_LIMIT_BYTES:
                    raise UserError(f"{where} is longer than {LINE_LIMIT_BYTES >> 20} MiB") from None
                if not self._more(wanted):
                    raise UserError(f"{where} is not JSON: {error.msg}; the file may be truncated") from None
                wanted *= 2

    def _more(self, size: int) -> bool:
        raw = self._file.read(size)
        self._text, self._at = self._text[self._at :] + self._decode(raw, final=not raw), 0
        return bool(raw)


def _object(value: Any, where: str, rule: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where} is JSON, but not an object; {rule}, with the fields of a document")
    return value
