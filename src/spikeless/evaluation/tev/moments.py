"""The std of every row of a table on disk, in one pass over its bytes and a few reused buffers."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeless.data.progress import track

__all__ = ["RowStatistics", "row_statistics"]

PLAIN_STD = (1e-15, 1e15)  # squares of such numbers neither vanish nor overflow in fp32
PLAIN_MEAN = 100.0  # times the std: beyond it the mean's rounding would show in the std
FUSED = (torch.float64, torch.float32, torch.bfloat16, torch.float16)  # LayerNorm takes them as they are
NONE = torch.empty(0, dtype=torch.int64)

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class RowStatistics:
    """What the rows of a table [V, D] are like.

    Attributes:
        raw: population std of each row [V]; NaN or infinite where the row is not finite.
        effective: the same of the rows after a transform [V], or None if there was none.
        constant: rows whose entries are all equal, zero rows among them.
        zero: rows of zeros.
    """

    raw: Tensor
    effective: Tensor | None
    constant: int
    zero: int


def row_statistics(
    read: Callable[[int, int], Iterable[Tensor]],
    count: int,
    at_once: int,
    scale: Tensor | None = None,
    transform: Map | None = None,
    description: str = "",
) -> RowStatistics:
    """Population std over the width of each row; fp32 or better, whatever the stored type.

    Mean and std are what LayerNorm computes on its way: the one operation of torch that goes over a row once, converts
    it as it goes, and centres before it squares. The rare row that fp32 would not serve, because its mean is large
    against its std, say, is done again in float64.
    Each thread reads rows of its own and computes alone: threads that share a chunk would wait for each other after
    every operation.

    Args:
        read: gives the rows from one number up to another as chunks [n, D]; each may reuse the last one's memory.
        count: V, the rows of the whole table.
        at_once: rows that one thread takes at a time.
        scale: what stored numbers are to be multiplied by [] or [V, 1].
        transform: rows [n, D] to rows [n, D'], in the type that they have.
        description: of the progress display.
    """

    def part(first: int) -> RowStatistics:
        last = min(first + at_once, count)
        own_scale = scale[first:last] if scale is not None and scale.ndim else scale
        return _part(read(first, last), last - first, own_scale, transform)

    starts = range(0, count, at_once)
    with _one_thread_an_operation() as threads, ThreadPoolExecutor(threads) as pool:
        parts = list(track(pool.map(part, starts), description, len(starts)))
    return RowStatistics(
        raw=torch.cat([each.raw for each in parts]),
        effective=None if transform is None else torch.cat([e for each in parts if (e := each.effective) is not None]),
        constant=sum(each.constant for each in parts),
        zero=sum(each.zero for each in parts),
    )


@contextlib.contextmanager
def _one_thread_an_operation() -> Iterator[int]:
    """Gives the number of threads that there were."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def _part(chunks: Iterable[Tensor], count: int, scale: Tensor | None, transform: Map | None) -> RowStatistics:
    """The statistics of consecutive rows, by one thread."""
    raw = torch.empty(count, dtype=torch.float64)
    effective = None if transform is None else torch.empty_like(raw)
    constant = zero = first = 0
    buffer = torch.empty(0)
    with torch.no_grad():
        for chunk in chunks:
            place = slice(first, first + len(chunk))
            own_scale = None if scale is None else (scale[place] if scale.ndim else scale)
            rows = chunk
            if transform is not None or own_scale is not None or chunk.dtype not in FUSED:
                if len(chunk) > len(buffer):
                    buffer = torch.empty(chunk.shape, dtype=_computed(chunk.dtype))
                rows = buffer[: len(chunk)].copy_(chunk)
                if own_scale is not None:
                    rows.mul_(own_scale)
            doubtful = _std_into(raw[place], rows)
            if effective is not None and transform is not None:
                _std_into(effective[place], transform(rows))
            if len(doubtful):
                exact = chunk[doubtful].double()
                if own_scale is not None:
                    exact *= own_scale[doubtful] if own_scale.ndim else own_scale
                low, high = exact.aminmax(dim=1)
                equal = (low == high) & low.isfinite()
                raw[first + doubtful] = _std(exact).masked_fill(equal, 0.0)
                if effective is not None and transform is not None:
                    effective[first + doubtful] = _std(transform(exact))
                constant += int(equal.sum())
                zero += int((equal & (low == 0)).sum())
            first += len(chunk)
    return RowStatistics(raw=raw, effective=effective, constant=constant, zero=zero)


def _std_into(std: Tensor, rows: Tensor) -> Tensor:
    """Write the population std of each row, computed in fp32 or better, into `std`.

    Returns:
        Indices of rows for which fp32 may not be enough, constant ones and those with NaN among them.
    """
    one = torch.ones(rows.shape[1], dtype=_computed(rows.dtype))  # its type is that of the statistics
    _, mean, inverse = torch.native_layer_norm(rows, one.shape, one, torch.zeros_like(one), 0.0)
    std.copy_(inverse[:, 0]).reciprocal_()
    low, high = PLAIN_STD
    distance = (mean * inverse).abs_()  # of the mean from zero, in stds
    least, most = inverse.aminmax()
    if distance.max() < PLAIN_MEAN and least > 1 / high and most < 1 / low:  # False for NaN
        return NONE
    plain = (inverse > 1 / high) & (inverse < 1 / low) & (distance < PLAIN_MEAN)
    return torch.nonzero(~plain[:, 0]).flatten()


def _computed(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _std(rows: Tensor) -> Tensor:
    """Population std of each row of a float64 table."""
    return (rows - rows.mean(1, keepdim=True)).square_().mean(1).sqrt()
