"""CSV and TSV files: rows of cells, the first of which names the columns."""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from spikeless.data.corpora._compressed import decompressed
from spikeless.data.corpora._records import RECORD_KEYS, RecordCorpus
from spikeless.errors import UserError

__all__ = ["CSV"]

CELL_LIMIT = 1 << 28
"""A longer cell is refused: a quotation mark is not closed, it seems [characters]."""
TAB = "\t"
_WORDS = {"tab": TAB, r"\t": TAB, "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


@dataclass(frozen=True, kw_only=True)
class CSV(RecordCorpus):
    """Records from every row, plain or compressed with gzip or Zstandard; a quoted cell may hold line ends.

    Every row has as many cells as the first. Cells are text, and an empty one is blank: skipped and counted. Bytes that
    are not UTF-8 become U+FFFD; such documents are counted as `invalid_utf8`.
    """

    usage: ClassVar[str] = f"csv:GLOB{RECORD_KEYS}[,delimiter=CHARACTER][,quoted=false][,validation=GLOB]"
    kind: ClassVar[str] = "csv"

    delimiter: str | None = None
    """What separates cells: one character, or `tab`; by default a tab in files called `.tsv`, else a comma."""

    quoted: bool = True
    """Whether a cell in quotation marks is taken out of them; if not, they are characters like any other."""

    def __post_init__(self):
        super().__post_init__()
        if self.delimiter is not None and len(_WORDS.get(self.delimiter, self.delimiter)) != 1:
            raise UserError(f"csv: the delimiter {self.delimiter!r} is not one character; write tab, or ; or |")

    def identity(self) -> tuple[str, ...]:
        """The kind, the fields, and what separates cells."""
        return *super().identity(), repr(self.delimiter), repr(self.quoted)

    def records(self, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Stream one file.

        Raises:
            UserError: damaged, without a row of names, or a row has another number of cells.
        """
        csv.field_size_limit(CELL_LIMIT)
        with decompressed(path, self.kind) as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
            quoting = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
            rows = csv.reader(text, delimiter=self._delimiter(path), quoting=quoting, strict=True)
            names: list[str] | None = None
            try:
                for row in rows:
                    where = f"csv: {path}, line {rows.line_num}"
                    if not row:
                        continue  # a blank line
                    if names is None:
                        names = self._names(row, where)
                    elif len(row) != len(names):
                        raise UserError(
                            f"{where}: a row of {len(row)} cells, but the first row names {len(names)} columns; quote "
                            "cells that hold the delimiter or line ends, or name another delimiter with delimiter="
                        )
                    else:
                        yield where, dict(zip(names, row, strict=True))
            except csv.Error as error:
                raise UserError(
                    f"csv: {path}, line {rows.line_num}: {error}; double every quotation mark inside a quoted cell, or "
                    "write quoted=false if quotation marks are text"
                ) from None
            finally:
                text.detach()

    def _delimiter(self, path: Path) -> str:
        if self.delimiter is not None:
            return _WORDS.get(self.delimiter, self.delimiter)
        return TAB if ".tsv" in [suffix.lower() for suffix in path.suffixes] else ","

    def _names(self, row: list[str], where: str) -> list[str]:
        for name in self.pick.names:
            if row.count(name) > 1:
                raise UserError(f"{where}: there are several columns {name!r}; rename them")
            if name not in row and len(row) == 1 and any(mark in row[0] for mark in ";\t|,"):
                raise UserError(
                    f"{where}: the first row names one column, {row[0]!r}; name what separates columns with "
                    "delimiter=, such as delimiter=; or delimiter=tab"
                )
        return row
