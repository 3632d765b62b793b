"""Primitives that the diagnostics share; fp32 or better, whatever the type of what is measured."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

__all__ = ["global_norm", "mean_and_std", "perplexity", "row_moments"]

CHUNK_ELEMENTS = 1 << 17  # a chunk and its copy stay in a core's cache


def global_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The L2 norm of all tensors together, a scalar on their device."""
    return torch.nn.utils.get_total_norm(list(tensors))


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
