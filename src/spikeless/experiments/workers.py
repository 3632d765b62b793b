"""Persistent worker processes that train and score the cells of a grid.

Each imports torch once and computes with a fixed number of threads. A worker that dies takes its task with it and
nothing else; workers whose parent dies end by themselves.
"""

import contextlib
import gc
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from spikeless.errors import UserError
from spikeless.experiments.cell import MemoryMeter
from spikeless.experiments.grid import Cell
from spikeless.experiments.task import Event, Task, Training
from spikeless.loggers import Row
from spikeless.training.interrupt import Interrupt, stop_signals

__all__ = ["Workers", "train_cells"]

SECONDS_BETWEEN_ROWS = 0.5
PATIENCE = 0.5
"""How long to wait for news before looking whether a signal has come [s]."""
NO_START = (
    "a worker process could not start, its own message is above; a script calls compare under "
    '`if __name__ == "__main__":`, and parts defined in a notebook need jobs=1'
)


def train_cells(cells: Sequence[Cell], jobs: int, threads: int, watch: Callable[[Event], None]) -> bool:
    """Train cells, `jobs` at a time; a signal to stop lets those that are at work save themselves.

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
    with Workers(jobs, threads) as workers:
        return not workers.run([Training(cell=cell) for cell in cells], watch)


class Workers:
    """Processes that stay between tasks; a context manager, which dismisses them at its end.

    It hands tasks out, collects news, and survives the death of any worker. One job means this process.

    Args:
        jobs: processes, started when there is something to do.
        threads: of each.
    """

    def __init__(self, jobs: int, threads: int) -> None:
        self._jobs, self._threads = jobs, threads
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[Connection, Any] = {}
        self._at_work: dict[Connection, Task] = {}
        self._begun: set[Connection] = set()
        self._waiting: list[Task] = []
        self._error: str | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for connection, process in self._workers.items():
            with contextlib.suppress(OSError):
                connection.send(None)
            process.join(timeout=5)
            if process.is_alive():
                process.terminate()
        self._workers.clear()

    def run(self, tasks: Sequence[Task], watch: Callable[[Event], None]) -> str | None:
        """Do tasks, as many at a time as there are jobs; a signal to stop lets runs at work save themselves.

        Args:
            tasks: in order of beginning.
            watch: told of everything that happens.

        Returns:
            The name of the signal that interrupted it, if one did.

        Raises:
            UserError: a task met what would stop the others too; runs that were at work have saved themselves.
        """
        if self._jobs == 1:
            return _run_here(tasks, self._threads, watch)
        self._waiting, self._watch, self._error = list(tasks), watch, None
        self._interrupt, self._stopping = Interrupt(), False
        with self._interrupt:
            for connection in list(self._workers):
                self._give(connection)
            while self._waiting and len(self._at_work) < self._jobs:
                self._hire()
            while self._at_work:
                if (self._interrupt.signal_name or self._error) and not self._stopping:
                    self._stopping = True
                    self._waiting.clear()
                    for connection in self._at_work:
                        self._workers[connection].terminate()
                for connection in wait(list(self._at_work), PATIENCE):
                    self._hear(connection)  # type: ignore[arg-type]
        if self._error:
            raise UserError(self._error)
        return self._interrupt.signal_name

    def _hire(self) -> None:
        """Start a worker, with a task."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._threads), daemon=True)
        process.start()
        theirs.close()
        self._workers[ours] = process
        self._give(ours)

    def _give(self, connection: Connection) -> None:
        """The next task, if there is one."""
        if not self._waiting:
            return
        try:
            connection.send(self._waiting[0])
        except OSError:  # it has died between two tasks
            self._workers.pop(connection).join()
            self._hire()
            return
        self._at_work[connection] = self._waiting.pop(0)
        self._watch(Event(cell=self._at_work[connection].cell))

    def _hear(self, connection: Connection) -> None:
        task = self._at_work[connection]
        try:
            kind, news = connection.recv()
        except (EOFError, OSError):  # also in the middle of a message
            self._bury(connection)
            return
        if kind == "begun":
            self._begun.add(connection)
            return
        if kind == "row":
            self._watch(Event(cell=task.cell, row=news))
            return
        del self._at_work[connection]
        self._begun.discard(connection)
        if kind == "error":
            self._error = news
            self._waiting.clear()
        else:
            self._watch(news)
        self._give(connection)

    def _bury(self, connection: Connection) -> None:
        """A worker is dead: its task is recorded as lost, and another takes its place."""
        task, process = self._at_work.pop(connection), self._workers.pop(connection)
        process.join()
        code = process.exitcode or 0
        begun = connection in self._begun
        self._begun.discard(connection)
        if not begun and (self._stopping or self._interrupt.signal_name):  # told to stop before it could listen
            self._watch(task.left())
            return
        if not begun and code > 0:
            self._error = NO_START
            self._waiting.clear()
            return
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._watch(task.lost(f"its process died ({cause}{', out of memory?' if code == -signal.SIGKILL else ''})"))
        if self._waiting:
            self._hire()


def _run_here(tasks: Sequence[Task], threads: int, watch: Callable[[Event], None]) -> str | None:
    before, meter = torch.get_num_threads(), MemoryMeter()
    torch.set_num_threads(threads)
    try:
        with Interrupt() as interrupt:
            for task in tasks:
                watch(Event(cell=task.cell))

                def pass_on(row: Row, cell: Cell = task.cell) -> None:
                    watch(Event(cell=cell, row=row))
                    if interrupt.signal_name:  # perhaps it came when no run was listening
                        signal.raise_signal(signal.SIGTERM)

                watch(task.do(meter, _Rows(task.cell, pass_on)))
                if interrupt.signal_name:
                    break
    finally:
        torch.set_num_threads(before)
        gc.unfreeze()
    return interrupt.signal_name


def _work(connection: Connection, threads: int) -> None:
    """A worker's life: tasks come, news go; it ends when it is told to, or when nobody is there any more."""
    told: list[int] = []  # to stop, at a moment when no run was listening
    for number in stop_signals():
        signal.signal(number, lambda number, _: told.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; a run at work listens for itself
    torch.set_num_threads(threads)
    meter = MemoryMeter()

    def pass_on(row: dict[str, float]) -> None:
        connection.send(("row", row))
        if told:
            signal.raise_signal(signal.SIGTERM)

    with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):
        while (task := connection.recv()) is not None:
            connection.send(("begun", None))
            try:
                connection.send(("done", task.do(meter, _Rows(task.cell, pass_on))))
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
