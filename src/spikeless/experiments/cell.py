"""One cell of a grid: whether it is done, doing it, and what came of it."""

import contextlib
import ctypes
import functools
import gc
import time
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from spikeless.config import diff, from_dict
from spikeless.data import PreparedData, prepare
from spikeless.errors import SpikelessWarning, UnhealthyRun, UserError
from spikeless.experiments.analysis.outcome import Outcome, outcome_of
from spikeless.experiments.grid import Cell
from spikeless.experiments.pace import warm_up
from spikeless.files import read_json, write_json
from spikeless.loggers import Logger
from spikeless.report import read_run
from spikeless.run import RunConfig
from spikeless.training.loop import train

__all__ = ["BY_HASH", "MemoryMeter", "is_done", "outcome_at", "outcome_in", "refuse_other", "train_cell"]

COST = "cost.json"
BY_HASH = ("data.spec", "data.tokenizer")
"""What the hash of the tokens tells better: the same data may lie elsewhere now."""
STATUS = Path("/proc/self/status")
RESET_PEAK = Path("/proc/self/clear_refs")


class MemoryMeter:
    """Peak memory of this process above what it held at `reset` [bytes], warm; where Linux counts it."""

    def __init__(self) -> None:
        self._warm: set[tuple[str, tuple[int, int]]] = set()
        gc.freeze()  # what is here now stays: looking through it for garbage before every run takes longer than a step
        self._before: int | None = None

    def warm_up(self, cell: Cell) -> None:
        """Make sure that this process has done a step of the cell's arm and shape before."""
        if (cell.arm, cell.shape) not in self._warm:
            warm_up(cell.run)
            self._warm.add((cell.arm, cell.shape))

    def reset(self) -> None:
        """Give back what earlier runs left, and begin a new peak."""
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):  # not Linux, or another C library
            ctypes.CDLL(None).malloc_trim(0)
        self._before = None
        with contextlib.suppress(OSError):  # else the peak would be that of earlier runs
            RESET_PEAK.write_text("5")
            self._before = _resident("VmRSS")

    def peak(self) -> int | None:
        """The highest since `reset`; None where it is not known."""
        now = _resident("VmHWM")
        return None if now is None or self._before is None else max(0, now - self._before)


def is_done(cell: Cell) -> bool:
    """True if the cell's run has ended by itself: with its last step, or unhealthy."""
    status = cell.folder / "status.json"
    if not (cell.folder / "run.json").exists() or not status.exists():
        return False
    return read_json(status, "state")["state"] in ("finished", "unhealthy")


def refuse_other(cell: Cell, trusted: Collection[str] = (), data_hash: str = "") -> None:
    """Stop if the cell's folder holds a run of another configuration.

    Args:
        cell: planned.
        trusted: modules outside the package that the user has named.
        data_hash: of the tokens that it is to be trained on, where they tell more than how they are named.

    Raises:
        UserError: it does, with the differences.
    """
    path = cell.folder / "run.json"
    if not path.exists():
        return
    stored = read_json(path, "config", "data_hash")
    try:
        found = diff(from_dict(stored["config"], RunConfig, trusted), cell.run)
        changes = [str(each) for each in found if not (data_hash and each.path in BY_HASH)]
    except UserError as error:
        changes = [str(error)]
    if data_hash and stored["data_hash"] != data_hash:
        changes.append(f"data: hash {stored['data_hash'][:12]} -> {data_hash[:12]}")
    if changes:
        raise UserError(
            f"{cell.folder} holds a run with another configuration:\n"
            + "".join(f"  {each}\n" for each in changes)
            + "run "
            "the command with which its grid was begun, or choose another --out"
        )


def train_cell(cell: Cell, meter: MemoryMeter, loggers: Sequence[Logger] = ()) -> Outcome:
    """Train a cell, or go on with it; a run that becomes unhealthy is an outcome like any other.

    Raises:
        UserError: what would stop any other cell too, such as a full disk.
    """
    data = _prepared(cell.run.data.spec, cell.run.data.tokenizer, cell.run.data.validation_fraction)
    meter.warm_up(cell)
    meter.reset()
    started = time.perf_counter()
    with contextlib.suppress(UnhealthyRun):  # its status says so
        train(cell.run, cell.folder, resume=True, loggers=loggers, report=False, data=data)
    seconds = _cost(cell.folder).get("seconds", 0.0) + time.perf_counter() - started
    write_json(cell.folder / COST, {"seconds": seconds, "peak_memory": meter.peak()})
    return outcome_at(cell)


@functools.lru_cache(1)  # the same for all cells of a grid
def _prepared(spec: str, tokenizer: str, validation_fraction: float) -> PreparedData:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpikelessWarning)  # the grid has said it
        return prepare(spec, tokenizer, validation_fraction=validation_fraction)


def outcome_at(cell: Cell, **known: Any) -> Outcome:
    """What has come of a cell so far; `planned` if nothing has."""
    if not (cell.folder / "run.json").exists():
        return Outcome(**(cell.place | known))
    return outcome_in(cell.folder, **cell.place, **known)


def outcome_in(folder: Path, **known: Any) -> Outcome:
    """What has come of the run in a folder so far."""
    return outcome_of(read_run(folder), **_cost(folder), **known)


def _cost(folder: Path) -> dict[str, Any]:
    path = folder / COST
    found = read_json(path, "seconds", "peak_memory") if path.exists() else {}
    return {key: found[key] for key in ("seconds", "peak_memory") if key in found}


def _resident(field: str) -> int | None:
    try:
        return int(STATUS.read_text().split(f"{field}:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return None
