"""Weights that a probe moves and puts back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["restored", "same_random_numbers"]


@contextmanager
def restored(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Copies of the parameters; on leaving, whatever the reason, the parameters are them again, bit for bit.

    Costs one copy of the parameters. A Ctrl-C during the restoring itself is raised after it.
    """
    saved = [parameter.detach().clone() for parameter in parameters]
    try:
        yield saved
    finally:
        try:
            _copy(parameters, saved)
        except KeyboardInterrupt:
            _copy(parameters, saved)
            raise


@contextmanager
def same_random_numbers(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Leave the random generators of the CPU and of the parameters' devices as they were."""
    devices = sorted({p.device.index or 0 for p in parameters if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        yield


@torch.no_grad()
def _copy(parameters: Sequence[Tensor], saved: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, saved, strict=True):
        parameter.copy_(value)
