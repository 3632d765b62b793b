"""Where a run's numbers go: one file per sink."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

__all__ = ["Logger", "Row"]

Row = Mapping[str, float]


class Logger(Protocol):
    """Receives one row of numbers per step; `step` is always among them."""

    def log(self, row: Row) -> None:
        """Take a row; steps never go back."""
        ...

    def flush(self) -> None:
        """Bring everything logged so far to the disk."""
        ...

    def close(self) -> None:
        """Flush and let go."""
        ...


class OpenLogger(Protocol):
    """What a logger's class offers: open a run's sink, forgetting rows after `last_step`."""

    def __call__(self, folder: Path, last_step: int) -> Logger:
        """The logger; `last_step` is -1 for a new run."""
        ...
