"""Persistent worker processes that train the cells of a grid.

Each imports torch once and computes with a fixed number of threads. A worker that dies takes its cell with it and
nothing else; workers whose parent dies end by themselves.
"""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from spikeless.errors import UserError
from spikeless.experiments.cell import MemoryMeter, train_cell
from spikeless.experiments.grid import Cell
from spikeless.experiments.outcome import Outcome
from spikeless.loggers import Row
from spikeless.training.interrupt import Interrupt

__all__ = ["Event", "train_cells"]

SECONDS_BETWEEN_ROWS = 0.5
PATIENCE = 0.5
"""How long to wait for news before looking whether a signal has come [s]."""


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
        for cell in cells:
            watch(Event(cell=cell))
            outcome = train_cell(cell, meter, [_Rows(cell, lambda row, cell=cell: watch(Event(cell=cell, row=row)))])
            watch(Event(cell=cell, outcome=outcome))
            if outcome.state == "interrupted":
                return False
    finally:
        torch.set_num_threads(before)
    return True


class _Workers:
    """The parent's side: hands cells out, collects news, and survives the death of any worker."""

    def __init__(self, cells: Sequence[Cell], jobs: int, threads: int, watch: Callable[[Event], None]) -> None:
        self._waiting, self._jobs, self._threads, self._watch = list(cells), jobs, threads, watch
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[Connection, Any] = {}
        self._at_work: dict[Connection, Cell] = {}
        self._error: str | None = None

    def run(self) -> bool:
        try:
            with Interrupt() as interrupt:
                for _ in range(min(self._jobs, len(self._waiting))):
                    self._hire()
                stopping = False
                while self._at_work:
                    if (interrupt.signal_name or self._error) and not stopping:
                        stopping = True
                        self._waiting.clear()
                        for connection in self._at_work:
                            os.kill(self._workers[connection].pid, signal.SIGTERM)
                    for connection in wait(list(self._at_work), PATIENCE):
                        self._hear(connection)  # type: ignore[arg-type]
        finally:
            self._dismiss()
        if self._error:
            raise UserError(self._error)
        return not interrupt.signal_name

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
        if not self._waiting:
            connection.send(None)
            return
        cell = self._waiting.pop(0)
        self._at_work[connection] = cell
        connection.send(cell)
        self._watch(Event(cell=cell))

    def _hear(self, connection: Connection) -> None:
        cell = self._at_work[connection]
        try:
            kind, news = connection.recv()
        except (EOFError, ConnectionError):
            self._bury(connection)
            return
        if kind == "row":
            self._watch(Event(cell=cell, row=news))
            return
        del self._at_work[connection]
        if kind == "error":
            self._error = news
        else:
            self._watch(Event(cell=cell, outcome=news))
        self._give(connection)

    def _bury(self, connection: Connection) -> None:
        """A worker is dead: its cell is recorded as crashed, and another takes its place."""
        cell, process = self._at_work.pop(connection), self._workers.pop(connection)
        process.join()
        code = process.exitcode or 0
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
