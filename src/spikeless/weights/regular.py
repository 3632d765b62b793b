"""Regular files on disk: opened without waiting on a pipe, read with `pread`, never mapped."""

import os
import stat
from pathlib import Path
from types import TracebackType

from spikeless.errors import UserError

__all__ = ["MissingFile", "RegularFile"]


class MissingFile(UserError):
    """There is no such file."""


class RegularFile:
    """A file open for reading at any offset.

    A memory map would count as resident memory, page by page; `pread` into a buffer does not.

    Attributes:
        path: as it was given.
        size: bytes in it when it was opened.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            MissingFile: there is none.
            UserError: it cannot be read, or is a folder, a pipe or a device.
        """
        self.path = path
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # opening a device may act on it
                raise UserError(f"{path} is not a regular file")
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise MissingFile(f"there is no {path}") from None
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from None
        status = os.fstat(self._descriptor)
        self.size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            os.close(self._descriptor)
            raise UserError(f"{path} is not a regular file")

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on.

        Raises:
            UserError: the disk fails, or the file has become shorter.
        """
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._descriptor, [buffer[done:]], offset + done)
            except OSError as error:
                raise UserError(f"cannot read {self.path}: {error.strerror or error}") from None
            if not count:
                raise UserError(f"{self.path} ends at byte {offset + done:,}; it became shorter while it was read")
            done += count

    def __enter__(self) -> "RegularFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
