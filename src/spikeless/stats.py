"""Primitives that the diagnostics share; fp32 or better, whatever the type of what is measured."""

import functools
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

__all__ = ["global_norm", "mean_and_std", "perplexity", "row_moments"]

CHUNK_ELEMENTS = 1 << 17  # a chunk and its copy stay in a core's cache
SMALLEST_SUM = 1e-12  # of a norm in fp32: below it, squares that fp32 rounds to zero could count


def global_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The L2 norm of all tensors together, a scalar on their device in fp32 (fp64 if one of them is).

    NaN if an entry is NaN; infinite only if an entry is, or if fp32 cannot hold the norm itself. Squares that fp32
    cannot hold are summed in fp64: on the CPU only when the sum in fp32 is out of range, on other devices always, since
    a look at the sum would wait for the device.
    """
    tensors = list(tensors)
    if not tensors:
        return torch.zeros(())
    dtype = functools.reduce(torch.promote_types, (each.dtype for each in tensors), torch.float32)
    if tensors[0].device.type == "cpu":
        norm = _norm(tensors, dtype)
        if SMALLEST_SUM < norm.numpy() < math.inf:
            return norm
    return _norm(tensors, torch.float64).to(dtype)


@torch.no_grad()
def _norm(tensors: list[Tensor], dtype: torch.dtype) -> Tensor:
    """One pass over the tensors; squares and their sum are of type `dtype`."""
    as_it_is = all(each.dtype == dtype for each in tensors)  # naming the type takes torch's slower way
    norms = torch._foreach_norm(tensors, 2, None if as_it_is else dtype)
    return torch.linalg.vector_norm(torch.stack([each.to(tensors[0].device) for each in norms]))


def mean_and_std(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation."""
    return values.mean(), values.std(correction=0)


def perplexity(loss: float) -> float:
    """The exponential of a loss [nats]; infinite where that is more than fp64 holds."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def row_moments(
    rows: Tensor, transform: Callable[[Tensor], Tensor] | None = None, against: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Population variance of each row [N], and its covariance with one vector [N], over the width.

    Computed in chunks, two passes each: about one read of memory, where `var(1)` is many times slower.

    Args:
        rows: [N, D].
        transform: applied to each chunk of rows first.
        against: a vector [D]; without it there is no covariance.
    """
    count = max(1, CHUNK_ELEMENTS // rows.shape[1])
    variances = torch.empty(len(rows), dtype=torch.float32, device=rows.device)
    covariances = None if against is None else torch.empty_like(variances)
    centred_vector = None if against is None else against.float() - against.float().mean()
    with torch.no_grad():
        for start in range(0, len(rows), count):
            chunk = rows[start : start + count].float()
            chunk = chunk if transform is None else transform(chunk).float()
            centred = chunk - chunk.mean(1, keepdim=True)
            if covariances is not None and centred_vector is not None:
                torch.mv(centred, centred_vector, out=covariances[start : start + count])
            torch.sum(centred.square_(), 1, out=variances[start : start + count])
    variances /= rows.shape[1]
    return variances, None if covariances is None else covariances / rows.shape[1]
