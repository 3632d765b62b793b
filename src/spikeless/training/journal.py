"""Rows of numbers on their way to the loggers, read from the device a step late."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from spikeless.errors import UnhealthyRun
from spikeless.loggers import Logger

__all__ = ["Journal"]

VITAL = ("loss", "grad_norm", "val_loss")


class Journal:
    """Passes rows on to loggers, so that no step waits for the device: a row is read when the next one comes.

    Raises:
        UnhealthyRun: from `write` and `flush`, when a row that is read has a non-finite vital number. The row is
            logged first.
    """

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self._loggers = loggers
        self._pending: Mapping[str, float | Tensor] | None = None

    def write(self, row: Mapping[str, float | Tensor]) -> None:
        """Take a row; log the one before it."""
        late, self._pending = self._pending, row
        self._pass_on(late)

    def flush(self) -> None:
        """Log the last row too, and bring everything to the disk."""
        late, self._pending = self._pending, None
        self._pass_on(late)
        for logger in self._loggers:
            logger.flush()

    def close(self) -> None:
        """Let the loggers go; a row that was not read yet is dropped."""
        for logger in self._loggers:
            logger.close()

    def _pass_on(self, late: Mapping[str, float | Tensor] | None) -> None:
        if late is None:
            return
        row = read_row(late)
        for logger in self._loggers:
            logger.log(row)
        sick = [f"{key} = {row[key]}" for key in VITAL if key in row and not math.isfinite(row[key])]
        if sick:
            raise UnhealthyRun(f"step {row['step']}: non-finite {', '.join(sick)}")


def read_row(row: Mapping[str, float | Tensor]) -> dict[str, float]:
    """A row as plain numbers, with one copy from the device."""
    keys = [key for key, value in row.items() if isinstance(value, Tensor)]
    values = torch.stack([row[key].detach().float() for key in keys]).tolist() if keys else []  # type: ignore[union-attr]
    return {**row, **dict(zip(keys, values, strict=True))}  # type: ignore[dict-item]
