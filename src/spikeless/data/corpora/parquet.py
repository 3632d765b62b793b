"""Parquet files: the columns that are asked for."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from spikeless.data.corpora._columns import check_columns, documents_of
from spikeless.data.corpora._records import RECORD_KEYS, PickingCorpus
from spikeless.data.documents import Document, Tally
from spikeless.errors import UserError
from spikeless.words import counted

__all__ = ["Parquet"]

BATCH_ROWS = 32
BUFFER_BYTES = 1 << 20
"""How much of a column is read at a time, instead of a whole row group."""


@dataclass(frozen=True, kw_only=True)
class Parquet(PickingCorpus):
    """Documents from one column or a template of several, streamed; no other column is read.

    A column may be text of any Arrow kind, dictionary-encoded too, or bytes, or lists of messages or of token ids. Null
    and blank text is skipped and counted. Bytes that are not UTF-8 become U+FFFD; such documents are counted as
    `invalid_utf8`.
    """

    usage: ClassVar[str] = f"parquet:GLOB{RECORD_KEYS}[,validation=GLOB]"
    kind: ClassVar[str] = "parquet"

    def read(self, path: Path, tally: Tally) -> Iterator[Document | None]:
        """Stream one file.

        Raises:
            UserError: damaged or no Parquet file, without these columns, or with one that holds no documents.
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
                check_columns(file.schema_arrow, self.pick, where)
                rows = 0
                for batch in file.iter_batches(BATCH_ROWS, columns=list(self.pick.names), use_threads=False):
                    yield from documents_of(batch, self.pick, where, rows, tally)
                    rows += batch.num_rows
                missing = file.metadata.num_rows - rows
            if missing:
                raise UserError(f"{where} is damaged: {counted(missing, 'row')} fewer than it says; fetch it anew")
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise UserError(f"{where} cannot be read: {str(error).splitlines()[0]}; fetch it anew") from None
