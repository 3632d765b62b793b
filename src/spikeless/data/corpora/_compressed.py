"""Files that may be compressed, read as a stream of bytes; what kind they are is told by their first bytes."""

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from spikeless.errors import UserError

__all__ = ["decompressed"]

GZIP = b"\x1f\x8b"
ZSTANDARD = b"\x28\xb5\x2f\xfd"
SKIPPABLE = b"\x2a\x4d\x18"
"""Ends the four bytes with which a Zstandard file may begin too: a frame that holds no data."""


@contextlib.contextmanager
def decompressed(path: Path, kind: str) -> Iterator[BinaryIO]:
    """Open a plain, gzip or Zstandard file, of one or several members; memory stays bounded.

    Args:
        path: the file.
        kind: the corpus, for messages.

    Raises:
        UserError: damaged or truncated, not compressed although its name says so, or pyarrow is not installed.
    """
    try:
        with contextlib.ExitStack() as stack:
            yield _opened(path, kind, stack)
    except EOFError:
        raise UserError(f"{kind}: {path} is truncated: its gzip data end too early; fetch it anew") from None
    except (gzip.BadGzipFile, zlib.error, _DamagedError) as error:
        raise UserError(f"{kind}: {path} is damaged: {error}; fetch it anew") from None


class _DamagedError(Exception):
    """What pyarrow says of a Zstandard file that it cannot decompress."""


def _opened(path: Path, kind: str, stack: contextlib.ExitStack) -> BinaryIO:
    file = stack.enter_context(path.open("rb"))
    head = file.read(4)
    file.seek(0)
    if head.startswith(GZIP):
        return cast(BinaryIO, stack.enter_context(gzip.GzipFile(fileobj=file)))
    if head == ZSTANDARD or head[1:] == SKIPPABLE:
        return io.BufferedReader(_Zstandard(path, kind))
    if path.suffix in (".gz", ".zst"):
        what = "gzip" if path.suffix == ".gz" else "Zstandard"
        raise UserError(f"{kind}: {path} is not {what} data, as its name says; rename it, or fetch it anew")
    return file


class _Zstandard(io.RawIOBase):
    """A Zstandard file's content. (`zstandard`'s own reader does not notice that a file is truncated.)"""

    def __init__(self, path: Path, kind: str):
        try:
            import pyarrow
        except ImportError:
            raise UserError(f"{kind}: {path} needs pyarrow; pip install 'spikeless[data]'") from None
        self._stream = pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")

    def readable(self) -> bool:
        """It is read only."""
        return True

    def readinto(self, buffer) -> int:
        """Fill a buffer; 0 at the end."""
        try:
            return self._stream.readinto(buffer)
        except OSError as error:
            raise _DamagedError(str(error).splitlines()[0]) from None
