"""Tensors of one or several safetensors files, read whole or by rows."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikeless.errors import UserError, nearest
from spikeless.weights.header import DTYPES, MAX_HEADER_BYTES, RandomAccess, TensorInfo
from spikeless.weights.regular import MissingFile
from spikeless.weights.strict_json import parse_object

__all__ = ["OpenFile", "Weights", "read_whole"]

OpenFile = Callable[[Path], AbstractContextManager[RandomAccess]]

BUFFER_BYTES = 1 << 21  # large beside the cost of a call, small beside a cache
MAX_ROW_BYTES = 1 << 26


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The tensors of a model on disk. Holds no file open and nothing in memory.

    Attributes:
        tensors: what there is, by name.
        metadata: what the file says of itself, text by text; that of the index for a sharded model.
        path: what was opened, for messages.
        folder: where its other files are, such as `config.json`.
        open_file: opens a file of that folder, and refuses what leads out of it.
        buffer_bytes: how much `rows` reads at once if it is not told.
    """

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    path: Path
    folder: Path
    open_file: OpenFile
    buffer_bytes: int = BUFFER_BYTES

    def read(self, name: str) -> Tensor:
        """A tensor in its stored type, in memory of its own.

        Raises:
            UserError: there is none of this name, its type is not one of torch's, it cannot be read or does not fit
                into memory.
        """
        info, dtype = self._find(name)
        try:
            raw = torch.empty(info.end - info.begin, dtype=torch.uint8)
        except RuntimeError:
            raise UserError(
                f"{info.file}: {name!r} of {info.end - info.begin:,} bytes does not fit into memory"
            ) from None
        with self.open_file(info.file) as file:
            file.read_into(raw.numpy().data, info.begin)
        return raw.view(dtype).view(info.shape)

    def rows(
        self, name: str, buffer_bytes: int | None = None, first: int = 0, last: int | None = None
    ) -> Iterator[Tensor]:
        """The rows of a matrix [N, D], or those from `first` up to `last`, as chunks [n, D] in their stored type.

        Every chunk is a view into one buffer of about `buffer_bytes`, which the next chunk overwrites.

        Raises:
            UserError: as for `read`, or it is no matrix, or one row alone takes more than 64 MiB.
        """
        info, dtype = self._find(name)
        if len(info.shape) != 2:
            raise UserError(f"{info.file}: {name!r} has the shape {list(info.shape)}; expected a matrix")
        (count, width), last = info.shape, info.shape[0] if last is None else min(last, info.shape[0])
        row_bytes = width * dtype.itemsize
        if row_bytes > MAX_ROW_BYTES:
            raise UserError(f"{info.file}: a row of {name!r} takes {row_bytes:,} bytes, too much for an embedding")
        if not row_bytes:
            return
        at_once = max(1, min(count, (buffer_bytes or self.buffer_bytes) // row_bytes))
        raw = torch.empty(at_once * row_bytes, dtype=torch.uint8)
        bytes_, table = raw.numpy().data, raw.view(dtype).view(at_once, width)
        with self.open_file(info.file) as file:
            for start in range(first, last, at_once):
                length = min(at_once, last - start)
                file.read_into(bytes_[: length * row_bytes], info.begin + start * row_bytes)
                yield table[:length]

    def json(self, name: str) -> dict[str, Any] | None:
        """The JSON object in a file beside the tensors, or None if there is no such file.

        Raises:
            UserError: it cannot be read, or is not a JSON object.
        """
        path = self.folder / name
        try:
            with self.open_file(path) as file:
                return parse_object(read_whole(file), str(path))
        except MissingFile:
            return None

    def _find(self, name: str) -> tuple[TensorInfo, torch.dtype]:
        if name not in self.tensors:
            raise UserError(f"{self.path} has no tensor {name!r}; {nearest(name, self.tensors, 'tensor')}")
        info = self.tensors[name]
        dtype = DTYPES[info.dtype][1]
        if dtype is None:
            raise UserError(f"{info.file}: {name!r} is stored as {info.dtype}, which torch cannot read")
        return info, dtype


def read_whole(file: RandomAccess) -> bytearray:
    """All bytes of a small file.

    Raises:
        UserError: it is larger than any header or index may be.
    """
    if file.size > MAX_HEADER_BYTES:
        raise UserError(f"{file.path}: {file.size:,} bytes are too many for a file of JSON")
    raw = bytearray(file.size)
    file.read_into(memoryview(raw), 0)
    return raw
