"""Read every parameter once: moments, zeros, what is not finite, and what its shape means."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeless.preflight.measurements import DeclaredInit, TensorReading

__all__ = ["read_tensors"]

CHUNK_ELEMENTS = 1 << 15  # stays in a core's cache in fp64, and is too little for torch to start threads for


@dataclass(frozen=True, kw_only=True)
class _Moments:
    """Of the finite entries; shares are of all entries."""

    std: float
    mean: float
    max_abs: float
    finite: float = 1.0
    zeros: float = 0.0
    constant: bool = False


def read_tensors(
    parameters: Mapping[str, Tensor],
    *,
    roles: Mapping[str, str],
    layers: Mapping[str, int],
    transposed: Collection[str] = (),
    gains: Mapping[str, tuple[float, float]] | None = None,
    declared: Mapping[str, DeclaredInit] | None = None,
) -> tuple[TensorReading, ...]:
    """A reading of each parameter, in their order.

    On the meta device there are no numbers: std and mean are those that were declared, NaN where nothing was.

    Args:
        parameters: by name.
        roles: values of `roles.Role` by name; a parameter without one was not placed.
        layers: index of the block by name.
        transposed: names of matrices stored as [in, out].
        gains: smallest and largest effective gain of a norm by name of its weight.
        declared: by name, where the building of the model was watched.
    """
    gains, declared = gains or {}, declared or {}
    readings = []
    for name, parameter in parameters.items():
        told = declared.get(name)
        moments = _declared_moments(told) if parameter.is_meta else _moments(parameter.detach())
        fan_out, fan_in = (0, 0) if parameter.dim() < 2 else parameter.shape[-2:]
        if name in transposed:
            fan_in, fan_out = fan_out, fan_in
        low, high = gains.get(name, (None, None))
        readings.append(
            TensorReading(
                name=name,
                role=roles.get(name),
                layer=layers.get(name),
                shape=tuple(parameter.shape),
                fan_in=fan_in,
                fan_out=fan_out,
                std=moments.std,
                mean=moments.mean,
                max_abs=moments.max_abs,
                finite=moments.finite,
                zeros=moments.zeros,
                constant=moments.constant and parameter.numel() > 1,
                gain_min=low,
                gain_max=high,
                declared=told,
            )
        )
    return tuple(readings)


def _declared_moments(told: DeclaredInit | None) -> _Moments:
    if told is None or told.std is None:
        return _Moments(std=math.nan, mean=math.nan, max_abs=math.nan)
    mean = math.nan if told.mean is None else told.mean
    if told.distribution != "constant":
        return _Moments(std=told.std, mean=mean, max_abs=math.nan)
    return _Moments(std=0.0, mean=mean, max_abs=abs(mean), zeros=float(mean == 0), constant=True)


def _moments(values: Tensor) -> _Moments:
    """Chunk by chunk in fp64; moments of chunks are merged, so that a large mean costs no digits."""
    count, zeros, mean, squares = 0, 0, 0.0, 0.0
    low, high = math.inf, -math.inf
    for piece in _chunks(values):
        chunk = piece.to(torch.float64, copy=True)
        total = chunk.sum().item()
        if not math.isfinite(total):
            chunk = chunk[chunk.isfinite()]
            total = chunk.sum().item()
        size = chunk.numel()
        if not size:
            continue
        smallest, largest = (bound.item() for bound in chunk.aminmax())
        low, high = min(low, smallest), max(high, largest)
        zeros += 0 if smallest > 0 or largest < 0 else size - int(chunk.count_nonzero())
        centre = total / size
        chunk -= centre
        step = centre - mean
        squares += chunk.square_().sum().item() + step * step * count * size / (count + size)
        count += size
        mean += step * size / count
    if not count:
        return _Moments(std=math.nan, mean=math.nan, max_abs=math.nan, finite=float(not values.numel()))
    constant = low == high and count == values.numel()
    return _Moments(
        std=0.0 if constant else math.sqrt(squares / count),
        mean=low if constant else mean,
        max_abs=max(abs(low), abs(high)),
        finite=count / values.numel(),
        zeros=zeros / values.numel(),
        constant=constant,
    )


def _chunks(values: Tensor) -> tuple[Tensor, ...]:
    """Flat pieces; nothing of a contiguous or a transposed tensor is copied."""
    if not values.is_contiguous():
        values = values.permute(sorted(range(values.dim()), key=values.stride, reverse=True))
    if values.is_contiguous():
        return values.view(-1).split(CHUNK_ELEMENTS)
    rows = max(1, CHUNK_ELEMENTS // max(1, values[0].numel()))
    return tuple(values[start : start + rows].reshape(-1) for start in range(0, len(values), rows))
