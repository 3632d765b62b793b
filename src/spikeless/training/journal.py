"""Rows of numbers on their way to the loggers, read from the device a step late."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from spikeless.errors import UnhealthyRun
from spikeless.loggers import Logger

__all__ = ["Journal", "LateRow", "read_row"]

LateRow = Mapping[str, float | Tensor | Callable[[], float]]
"""Numbers by key, some of them still on the device or not yet known."""

VITAL = ("loss", "grad_norm", "val_loss")


class Journal:
    """Passes rows on to loggers, so that no step waits for the device: a row is read when the next one comes.

    Raises:
        UnhealthyRun: from `write` and `flush`, when a row that is read has a non-finite vital number. The row is
            logged first.
    """

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self._loggers = loggers
        self._pending: LateRow | None = None

    def write(self, row: LateRow) -> None:
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

    def _pass_on(self, late: LateRow | None) -> None:
        if late is None:
            return
        row = read_row(late)
        for logger in self._loggers:
            logger.log(row)
        sick = [f"{key} = {row[key]}" for key in VITAL if key in row and not math.isfinite(row[key])]
        if sick:
            raise UnhealthyRun(f"step {row['step']}: non-finite {', '.join(sick)}")


def read_row(row: LateRow) -> dict[str, float]:
    """A row as plain numbers, with one copy from the device; what is a function is called after it."""
    keys = [key for key, value in row.items() if isinstance(value, Tensor)]
    values = torch.stack([row[key].detach().float() for key in keys]).tolist() if keys else []  # type: ignore[union-attr]
    known = dict(zip(keys, values, strict=True))
    return {key: known[key] if key in known else value() if callable(value) else value for key, value in row.items()}  # type: ignore[misc]
