"""Parquet files: one column of each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from spikeless.data.corpora import Tally
from spikeless.data.corpora._files import FileCorpus
from spikeless.data.corpora._records import decoded, missing_field
from spikeless.errors import UserError
from spikeless.words import counted

__all__ = ["Parquet"]

BATCH_ROWS = 32
BUFFER_BYTES = 1 << 20
"""How much of a column is read at a time, instead of a whole row group."""


@dataclass(frozen=True, kw_only=True)
class Parquet(FileCorpus):
    """One text column, streamed; no other column is read.

    The column may be text of any Arrow kind, dictionary-encoded too, or bytes. Null and blank text is skipped
    and counted. Bytes that are not UTF-8 become U+FFFD; such documents are counted as `invalid_utf8`.
    """

    usage: ClassVar[str] = "parquet:GLOB[,field=NAME][,validation=GLOB]"
    kind: ClassVar[str] = "parquet"

    field: str = "text"
    """The column that holds the text."""

    def identity(self) -> tuple[str, ...]:
        """The kind and the field."""
        return self.kind, self.field

    def read(self, path: Path, tally: Tally) -> Iterator[str]:
        """Stream one file.

        Raises:
            UserError: damaged or no Parquet file, without this column, or with one that is not text.
        """
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise UserError("parquet: pyarrow is not installed; pip install 'spikeless[data]'") from None
        where = f"parquet: {path}"
        options = {"buffer_size": BUFFER_BYTES, "pre_buffer": False, "page_checksum_verification": True}
        try:
            with parquet.ParquetFile(path, **options) as file:
                self._check_column(file.schema_arrow, where)
                missing = file.metadata.num_rows
                for batch in file.iter_batches(BATCH_ROWS, columns=[self.field], use_threads=False):
                    missing -= batch.num_rows
                    for raw in _as_bytes(batch.column(0)).to_pylist():
                        yield decoded(raw or b"", tally)
            if missing:
                raise UserError(f"{where} is damaged: {counted(missing, 'row')} fewer than it says; fetch it anew")
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise UserError(f"{where} cannot be read: {str(error).splitlines()[0]}; fetch it anew") from None

    def _check_column(self, schema: Any, where: str) -> None:
        if schema.names.count(self.field) > 1:
            raise UserError(f"{where}: there are several columns {self.field!r}; rename them")
        if self.field not in schema.names:
            raise missing_field(self.field, schema.names, where)
        kind = schema.field(self.field).type
        if not _is_text(kind):
            raise UserError(
                f"{where}: the column {self.field!r} holds {kind}, not text; name a column of text with field=NAME"
            )


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    value = kind.value_type if types.is_dictionary(kind) else kind
    text = (types.is_string, types.is_large_string, types.is_string_view)
    raw = (types.is_binary, types.is_large_binary, types.is_binary_view)
    return any(test(value) for test in text + raw)


def _as_bytes(column: Any) -> Any:
    """As bytes, since text is not checked when it is written: Python would stop at what is not UTF-8."""
    import pyarrow

    column = column.dictionary_decode() if pyarrow.types.is_dictionary(column.type) else column
    return column.cast(pyarrow.large_binary())
