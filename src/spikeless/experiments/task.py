"""What a worker does with a cell of a grid, and the news of it."""

from dataclasses import dataclass
from typing import Protocol

from spikeless.experiments.analysis.outcome import Outcome
from spikeless.experiments.cell import MemoryMeter, outcome_at, train_cell
from spikeless.experiments.grid import Cell
from spikeless.loggers import Logger, Row

__all__ = ["Event", "Task", "Training"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """News of a cell; all three are None when a task begins.

    Attributes:
        cell: whose.
        row: of numbers.
        outcome: at the end of its training.
        scores: at the end of its scoring, by name; empty if it could not be scored.
    """

    cell: Cell
    row: Row | None = None
    outcome: Outcome | None = None
    scores: dict[str, float] | None = None


class Task(Protocol):
    """Something to do with a cell, here or in another process: it can be pickled."""

    @property
    def cell(self) -> Cell:
        """The cell."""
        ...

    def do(self, meter: MemoryMeter, rows: Logger) -> Event:
        """Do it; the news at its end.

        Raises:
            UserError: what would stop any other task too.
        """
        ...

    def left(self) -> Event:
        """The news where it was not begun."""
        ...

    def lost(self, message: str) -> Event:
        """The news where its process died, and how that came."""
        ...


@dataclass(frozen=True, kw_only=True)
class Training:
    """Train a cell, or go on with it."""

    cell: Cell

    def do(self, meter: MemoryMeter, rows: Logger) -> Event:
        """Train; see `train_cell`."""
        return Event(cell=self.cell, outcome=train_cell(self.cell, meter, [rows]))

    def left(self) -> Event:
        """What was there before."""
        return Event(cell=self.cell, outcome=outcome_at(self.cell))

    def lost(self, message: str) -> Event:
        """The run has crashed."""
        return Event(cell=self.cell, outcome=Outcome(**self.cell.place, state="crashed", message=message))
