"""The header of a safetensors file, every claim checked against the file before anything rests on it.

Layout: 8 bytes, the header's length N, little-endian; N bytes of JSON; the data, without gaps or overlaps.
Source: the format's description at https://huggingface.co/docs/safetensors.
"""

from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as brief
from typing import Any, Protocol

import torch

from spikeless.errors import UserError, nearest
from spikeless.weights.strict_json import parse_object
from spikeless.words import counted

__all__ = ["DTYPES", "MAX_HEADER_BYTES", "RandomAccess", "TensorInfo", "read_header"]

MAX_HEADER_BYTES = 100_000_000  # as in the safetensors library
LENGTH_BYTES = 8
MAX_ELEMENTS = 1 << 63

DTYPES: dict[str, tuple[int, torch.dtype | None]] = {  # bits, and torch's name where it has one
    "BOOL": (8, torch.bool),
    "U8": (8, torch.uint8),
    "I8": (8, torch.int8),
    "U16": (16, torch.uint16),
    "I16": (16, torch.int16),
    "U32": (32, torch.uint32),
    "I32": (32, torch.int32),
    "U64": (64, torch.uint64),
    "I64": (64, torch.int64),
    "F4": (4, None),
    "F6_E2M3": (6, None),
    "F6_E3M2": (6, None),
    "F8_E4M3": (8, torch.float8_e4m3fn),
    "F8_E4M3FNUZ": (8, torch.float8_e4m3fnuz),
    "F8_E5M2": (8, torch.float8_e5m2),
    "F8_E5M2FNUZ": (8, torch.float8_e5m2fnuz),
    "F8_E8M0": (8, torch.float8_e8m0fnu),
    "F16": (16, torch.float16),
    "BF16": (16, torch.bfloat16),
    "F32": (32, torch.float32),
    "F64": (64, torch.float64),
    "C64": (64, torch.complex64),
}


class RandomAccess(Protocol):
    """A file that can be read anywhere."""

    path: Path
    size: int

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on.

        Raises:
            UserError: they cannot be read, or end too early.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """Where a tensor is, and what it is.

    Attributes:
        name: its name in the file.
        dtype: as safetensors calls it, such as "BF16".
        shape: its sizes; () for a scalar.
        file: the file that holds it.
        begin: offset of its first byte, from the start of the file.
        end: offset after its last byte.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    end: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        count = 1
        for size in self.shape:
            count *= size
        return count


def read_header(file: RandomAccess) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """The tensors of a file by name, in the order of their bytes, and the file's metadata.

    Raises:
        UserError: the header contradicts itself or the file.
    """
    where = str(file.path)
    if file.size < LENGTH_BYTES:
        raise UserError(f"{where} is no safetensors file: it has {counted(file.size, 'byte')}; is it truncated?")
    length = int.from_bytes(_bytes(file, LENGTH_BYTES, 0), "little")
    if length > MAX_HEADER_BYTES:
        raise UserError(
            f"{where}: its header claims {length:,} bytes, more than the {MAX_HEADER_BYTES:,} that the format allows; "
            "it is no safetensors file, or damaged"
        )
    start = LENGTH_BYTES + length
    if start > file.size:
        raise UserError(
            f"{where}: its header claims {length:,} bytes, but the file has {file.size:,}; it is truncated or damaged"
        )
    data = parse_object(_bytes(file, length, LENGTH_BYTES), f"{where}: header")
    metadata = data.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UserError(f"{where}: header: __metadata__ must map text to text")
    tensors = [_tensor(name, entry, file, start) for name, entry in data.items()]
    tensors.sort(key=lambda each: (each.begin, each.end))
    _check_cover(tensors, file, start)
    return {each.name: each for each in tensors}, metadata


def _bytes(file: RandomAccess, count: int, offset: int) -> bytearray:
    buffer = bytearray(count)
    file.read_into(memoryview(buffer), offset)
    return buffer


def _tensor(name: str, entry: Any, file: RandomAccess, start: int) -> TensorInfo:
    where = f"{file.path}: header: tensor {name[:200]!r}"
    if not name.isprintable():
        raise UserError(f"{where}: the name holds characters that cannot be shown")
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise UserError(f"{where}: expected an object with dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise UserError(f"{where}: unknown dtype {brief(dtype)}; {nearest(str(dtype)[:50], DTYPES)}")
    if not _sizes(shape):
        raise UserError(f"{where}: its shape must be a list of whole numbers, none negative, got {brief(shape)}")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise UserError(f"{where}: data_offsets must be [begin, end], got {brief(offsets)}")
    elements = 1
    for size in shape:
        elements *= max(size, 1)
        if elements >= MAX_ELEMENTS:
            raise UserError(f"{where}: a shape of {brief(shape)} has more elements than any file could hold")
    bits = (0 if 0 in shape else elements) * DTYPES[dtype][0]
    begin, end = offsets
    if bits != (end - begin) * 8:
        raise UserError(f"{where}: {dtype} of shape {brief(shape)} does not take the {end - begin:,} bytes it claims")
    if start + end > file.size:
        raise UserError(
            f"{where}: its bytes end at {start + end:,}, but the file has {file.size:,}; it is truncated or damaged"
        )
    return TensorInfo(name=name, dtype=dtype, shape=tuple(shape), file=file.path, begin=start + begin, end=start + end)


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_cover(tensors: list[TensorInfo], file: RandomAccess, start: int) -> None:
    """Every byte of the data belongs to exactly one tensor."""
    at = start
    for each in tensors:
        if each.begin != at:
            fault = "overlaps the one before it" if each.begin < at else "leaves a hole before it"
            raise UserError(f"{file.path}: header: tensor {each.name!r} {fault}, at byte {each.begin:,}")
        at = each.end
    if at != file.size:
        raise UserError(
            f"{file.path}: {counted(file.size - at, 'byte')} after the last tensor belong to none; it is damaged"
        )
