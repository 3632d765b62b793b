"""The std of every row of a table on disk, in one pass over its bytes and a few reused buffers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["RowStatistics", "row_statistics"]

PLAIN_STD = (1e-15, 1e15)  # squares of such numbers neither vanish nor overflow in fp32
PLAIN_MEAN = 100.0  # times the std: beyond it the mean's rounding would show in the std

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
    chunks: Iterable[Tensor], count: int, scale: Tensor | None = None, transform: Map | None = None
) -> RowStatistics:
    """Population std over the width of each row; fp32 or better, whatever the stored type.

    A chunk is converted and centred in a buffer that stays in the cache, then its norm is taken: two passes, so
    nothing cancels. The rare row that fp32 would not serve is done again in float64.

    Args:
        chunks: rows [n, D], in their order; each may reuse the memory of the one before.
        count: V, the rows of the whole table.
        scale: what stored numbers are to be multiplied by [] or [V, 1].
        transform: rows [n, D] to rows [n, D'], in the type that they have.
    """
    raw = torch.empty(count, dtype=torch.float64)
    effective = None if transform is None else torch.empty(count, dtype=torch.float64)
    constant = zero = first = 0
    buffer = torch.empty(0)
    with torch.no_grad():
        for chunk in chunks:
            if len(chunk) > len(buffer):
                buffer = torch.empty(chunk.shape, dtype=torch.promote_types(torch.float32, _computable(chunk.dtype)))
            part = slice(first, first + len(chunk))
            own_scale = scale[part] if scale is not None and scale.ndim else scale
            rows = buffer[: len(chunk)].copy_(chunk)
            if own_scale is not None:
                rows.mul_(own_scale)
            if effective is not None and transform is not None:
                effective[part] = _stds_(transform(rows))[0]
            raw[part], mean = _stds_(rows)
            doubtful = _doubtful(raw[part], mean)
            if len(doubtful):
                exact = chunk[doubtful].double()
                if own_scale is not None:
                    exact *= own_scale[doubtful] if own_scale.ndim else own_scale
                raw[first + doubtful] = exact.std(1, correction=0)
                if effective is not None and transform is not None:
                    effective[first + doubtful] = transform(exact).std(1, correction=0)
                low, high = exact.aminmax(dim=1)
                equal = (low == high) & low.isfinite()
                raw[first + doubtful[equal]] = 0.0
                constant += int(equal.sum())
                zero += int((equal & (low == 0)).sum())
            first += len(chunk)
    return RowStatistics(raw=raw, effective=effective, constant=constant, zero=zero)


def _computable(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _stds_(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Std and mean of each row; the rows are left centred."""
    width = rows.shape[1]
    mean = torch.mv(rows, rows.new_full((width,), 1 / width))
    rows.sub_(mean[:, None])
    return torch.linalg.vector_norm(rows, dim=1) / width**0.5, mean


def _doubtful(std: Tensor, mean: Tensor) -> Tensor:
    """Indices of rows for which fp32 may not be enough, constant ones and those with NaN among them."""
    low, high = PLAIN_STD
    plain = (std > low) & (std < high) & (mean.abs() < PLAIN_MEAN * std)
    return torch.nonzero(~plain).flatten()
