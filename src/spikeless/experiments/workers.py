"""Persistent worker processes that train the cells of a grid.

Each imports torch once and computes with a fixed number of threads. A worker that dies takes its cell with it and
nothing else; workers whose parent dies end by themselves.
"""

import contextlib
import gc
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from spikeless.errors import UserError
from spikeless.experiments.analysis.outcome import Outcome
from spikeless.experiments.cell import MemoryMeter, outcome_at, train_cell
from spikeless.experiments.grid import Cell
from spikeless.loggers import Row
from spikeless.training.interrupt import Interrupt

__all__ = ["Event", "train_cells"]

SECONDS_BETWEEN_ROWS = 0.5
PATIENCE = 0.5
"""How long to wait for news before looking whether a signal has come [s]."""
NO_START = (
    "a worker process could not start, its own message is above; a script calls compare under "
    '`if __name__ == "__main__":`, and parts defined in a notebook need jobs=1'
)


@dataclass(frozen=True, kw_only=True)
class Event:
    """News of a cell: a row of numbers, or its outcome at the end; neither when it begins."""

    cell: Cell
    row: Row | None = None
    outcome: Outcome | None = None


def train_cells(cells: Sequence[Cell], jobs: int, threads: int, watch: Callable[[Event], None]) -> bool:
    """Train cells, `jobs` at a time; SIGTERM and Ctrl-C let those that are at work save themselves.

    Args:
        cells: in order of beginning.
        jobs: processes; one means this process.
        threads: of each.
        watch: told of everything that happens.

    Returns:
        False if it was interrupted.

    Raises:
        UserError: a cell met what would stop the others too; those that were at work have saved themselves.
    """
    if jobs == 1:
        return _train_here(cells, threads, watch)
    return _Workers(cells, jobs, threads, watch).run()


def _train_here(cells: Sequence[Cell], threads: int, watch: Callable[[Event], None]) -> bool:
    before, meter = torch.get_num_threads(), MemoryMeter()
    torch.set_num_threads(threads)
    try:
        with Interrupt() as interrupt:
            for cell in cells:
                watch(Event(cell=cell))

                def pass_on(row: Row, cell: Cell = cell) -> None:
                    watch(Event(cell=cell, row=row))
                    if interrupt.signal_name:  # perhaps it came when no run was listening
                        signal.raise_signal(signal.SIGTERM)

                outcome = train_cell(cell, meter, [_Rows(cell, pass_on)])
                watch(Event(cell=cell, outcome=outcome))
                if interrupt.signal_name:
                    return False
    finally:
        torch.set_num_threads(before)
        gc.unfreeze()
    return True


class _Workers:
    """The parent's side: hands cells out, collects news, and survives the death of any worker."""

    def __init__(self, cells: Sequence[Cell], jobs: int, threads: int, watch: Callable[[Event], None]) -> None:
        self._waiting, self._jobs, self._threads, self._watch = list(cells), jobs, threads, watch
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[Connection, Any] = {}
        self._at_work: dict[Connection, Cell] = {}
        self._begun: set[Connection] = set()
        self._error: str | None = None
        self._interrupt = Interrupt()
        self._stopping = False

    def run(self) -> bool:
        try:
            with self._interrupt:
                for _ in range(min(self._jobs, len(self._waiting))):
                    self._hire()
                while self._at_work:
                    if (self._interrupt.signal_name or self._error) and not self._stopping:
                        self._stopping = True
                        self._waiting.clear()
                        for connection in self._at_work:
                            self._workers[connection].terminate()
                    for connection in wait(list(self._at_work), PATIENCE):
                        self._hear(connection)  # type: ignore[arg-type]
        finally:
            self._dismiss()
        if self._error:
            raise UserError(self._error)
        return not self._interrupt.signal_name

    def _hire(self) -> None:
        """Start a worker, with a cell."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._threads), daemon=True)
        process.start()
        theirs.close()
        self._workers[ours] = process
        self._give(ours)

    def _give(self, connection: Connection) -> None:
        """The next cell, or leave."""
        try:
            connection.send(self._waiting[0] if self._waiting else None)
        except OSError:  # it has died between two cells
            self._workers.pop(connection).join()
            if self._waiting:
                self._hire()
            return
        if self._waiting:
            self._at_work[connection] = self._waiting.pop(0)
            self._watch(Event(cell=self._at_work[connection]))

    def _hear(self, connection: Connection) -> None:
        cell = self._at_work[connection]
        try:
            kind, news = connection.recv()
        except (EOFError, OSError):  # also in the middle of a message
            self._bury(connection)
            return
        if kind == "begun":
            self._begun.add(connection)
            return
        if kind == "row":
            self._watch(Event(cell=cell, row=news))
            return
        del self._at_work[connection]
        self._begun.discard(connection)
        if kind == "error":
            self._error = news
            self._waiting.clear()
        else:
            self._watch(Event(cell=cell, outcome=news))
        self._give(connection)

    def _bury(self, connection: Connection) -> None:
        """A worker is dead: its cell is recorded as crashed, and another takes its place."""
        cell, process = self._at_work.pop(connection), self._workers.pop(connection)
        process.join()
        code = process.exitcode or 0
        begun = connection in self._begun
        self._begun.discard(connection)
        if not begun and (self._stopping or self._interrupt.signal_name):  # told to stop before it could listen
            self._watch(Event(cell=cell, outcome=outcome_at(cell)))
            return
        if not begun and code > 0:
            self._error = NO_START
            self._waiting.clear()
            return
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        message = f"its process died ({cause}{', out of memory?' if code == -signal.SIGKILL else ''})"
        self._watch(Event(cell=cell, outcome=Outcome(**cell.place, state="crashed", message=message)))
        if self._waiting:
            self._hire()

    def _dismiss(self) -> None:
        for connection, process in self._workers.items():
            with contextlib.suppress(OSError):
                connection.send(None)
            process.join(timeout=5)
            if process.is_alive():
                process.terminate()


def _work(connection: Connection, threads: int) -> None:
    """A worker's life: cells come, outcomes go; it ends when it is told to, or when nobody is there any more."""
    told: list[int] = []  # to stop, at a moment when no run was listening
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; a run at work listens for itself
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    torch.set_num_threads(threads)
    meter = MemoryMeter()

    def pass_on(row: dict[str, float]) -> None:
        connection.send(("row", row))
        if told:
            signal.raise_signal(signal.SIGTERM)

    with contextlib.suppress(EOFError, ConnectionError):
        while (cell := connection.recv()) is not None:
            connection.send(("begun", None))
            rows = _Rows(cell, pass_on)
            try:
                connection.send(("outcome", train_cell(cell, meter, [rows])))
            except UserError as error:
                connection.send(("error", str(error)))


class _Rows:
    """A logger that passes rows on, not more often than anyone can look at them."""

    def __init__(self, cell: Cell, send: Callable[[dict[str, float]], None]) -> None:
        self._send, self._sent, self._last = send, 0.0, cell.run.steps

    def log(self, row: Row) -> None:
        """Pass a row on, if the last one was a while ago."""
        now = time.monotonic()
        if now - self._sent >= SECONDS_BETWEEN_ROWS or row["step"] == self._last:
            self._sent = now
            self._send({key: row[key] for key in ("step", "loss", "val_loss") if key in row})

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""
