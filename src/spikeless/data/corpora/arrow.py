"""Arrow files, as `datasets` keeps them in its cache: the columns that are asked for."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from spikeless.data.corpora._columns import check_columns, documents_of
from spikeless.data.corpora._records import RECORD_KEYS, PickingCorpus
from spikeless.data.documents import Document, Tally
from spikeless.errors import UserError

__all__ = ["Arrow"]

MAGIC = b"ARROW1"
"""Begins a file of the file format; one of the stream format has none."""


@dataclass(frozen=True, kw_only=True)
class Arrow(PickingCorpus):
    """Documents from one column or a template of several, of Arrow's file format or its stream format."""

    usage: ClassVar[str] = f"arrow:GLOB{RECORD_KEYS}[,validation=GLOB]"
    kind: ClassVar[str] = "arrow"

    def read(self, path: Path, tally: Tally) -> Iterator[Document | None]:
        """Stream one file.

        Raises:
            UserError: damaged or no Arrow file, without these columns, or with one that holds no documents.
        """
        try:
            import pyarrow
        except ImportError:
            raise UserError("arrow: pyarrow is not installed; pip install 'spikeless[data]'") from None
        where = f"arrow: {path}"
        try:
            with pyarrow.memory_map(str(path)) as source:
                is_file = source.read(len(MAGIC)) == MAGIC
                source.seek(0)
                reader = (pyarrow.ipc.open_file if is_file else pyarrow.ipc.open_stream)(source)
                check_columns(reader.schema, self.pick, where)
                batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
                rows = 0
                for batch in batches:
                    yield from documents_of(batch, self.pick, where, rows, tally)
                    rows += batch.num_rows
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise UserError(f"{where} cannot be read: {str(error).splitlines()[0]}; fetch it anew") from None
