"""How long a grid will take, and with how many processes it is fastest."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeless.config import find
from spikeless.diagnostics import Snapshot
from spikeless.experiments.grid import Cell
from spikeless.run import RunConfig
from spikeless.training.build import build_model
from spikeless.training.environment import resolve_device
from spikeless.training.objective import Objective, time_pass
from spikeless.training.state import TrainState
from spikeless.words import duration

__all__ = ["Pace", "measure_pace", "reading_seconds", "warm_up"]

READING = 3.0
"""Diagnostics of a comparison take about so many forward and backward passes each time they are read."""
PARTS = 4
"""Micro-batches of the exact gradient variance when its time is taken."""
FORWARD = 1 / 3
"""Share of the forward pass in a forward and backward pass."""
AROUND = 1.2
"""A step is so much longer than its forward and backward pass: clipping, optimizer, logs."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What was measured before a grid begins.

    Attributes:
        jobs: processes at a time, where there are as many runs.
        threads: of each.
        pass_seconds: forward and backward pass of one step with so many threads, by depth and width [s].
        source: how `jobs` was decided, in words.
    """

    jobs: int
    threads: int
    pass_seconds: dict[tuple[int, int], float]
    source: str

    def seconds(self, cell: Cell) -> float:
        """How long a cell will take, about [s]."""
        run, once = cell.run, self.pass_seconds[cell.shape]
        every = run.metrics.every
        evaluations = 2 + (run.steps // run.evaluation.every if run.evaluation.every else 0)
        evaluated = evaluations * run.evaluation.tokens / (run.data.batch_size * run.data.sequence_length)
        passes = AROUND * run.steps + FORWARD * evaluated + (READING * run.steps / every if every else 0)
        return passes * once

    def total(self, cells: Sequence[Cell]) -> float:
        """How long they will take, about [s]."""
        return sum(map(self.seconds, cells)) / max(1, min(self.jobs, len(cells)))


def measure_pace(cells: Sequence[Cell], jobs: int | None = None, threads: int | None = None) -> Pace:
    """Time a step of each shape; where `jobs` is not given, take what trains most tokens a second.

    On a CPU that is one process of one thread per core if a step with one thread takes less than as many times as long
    as there are cores; else one process with all threads. A GPU gets one process.

    Args:
        cells: with their vocabulary resolved.
        jobs: processes, if decided.
        threads: of each process, if a grid was begun with so many.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    device = resolve_device(cells[0].run.device)
    shapes = {cell.shape: cell.run for cell in reversed(cells)}
    largest = max(shapes, key=lambda shape: shape[0] * shape[1] ** 2)
    if jobs is not None and threads is not None:
        source = "as begun"
    elif device.type != "cpu":
        threads, jobs, source = torch.get_num_threads(), jobs or 1, "one process for the device"
    elif jobs is not None:
        threads, source = max(1, cores // jobs), "as asked"
    else:
        alone, together = _pass_seconds(shapes[largest], 1), _pass_seconds(shapes[largest], cores)
        faster = alone < cores * together
        jobs, threads = (cores, 1) if faster else (1, cores)
        source = f"a step takes {duration(alone)} with one thread, {duration(together)} with {cores}"
    return Pace(
        jobs=jobs,
        threads=threads,
        pass_seconds={shape: _pass_seconds(run, threads) for shape, run in shapes.items()},
        source=source,
    )


def reading_seconds(run: RunConfig) -> dict[str, float]:
    """Time of one reading of each of the run's diagnostics, at the initial weights on random tokens, one thread [s].

    Those that have nothing to read before the first step are left out.

    Args:
        run: with its vocabulary and precision resolved.
    """
    state, objective = _started(run)
    snapshot = _snapshot(run, state, objective)
    found = {name: find("diagnostics", name) for name in run.metrics.diagnostics}
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {
            name: seconds
            for name, each in found.items()
            if (seconds := _least_seconds(lambda each=each: each(snapshot)))
        }
    finally:
        torch.set_num_threads(before)


def warm_up(run: RunConfig) -> None:
    """One step of the run on random tokens, diagnostics too, thrown away.

    What a process imports, compiles and sets aside the first time is then no cost of the run that comes first.

    Args:
        run: with its vocabulary and precision resolved.
    """
    state, objective = _started(run)
    size = (run.data.batch_size // run.data.micro_batches, run.data.sequence_length)
    tokens = _random_tokens(run, size)
    for _ in range(run.data.micro_batches):
        objective(tokens, tokens).backward()
    state.keep_previous()
    state.optimizer.step()
    state.optimizer.zero_grad()
    snapshot = _snapshot(run, state, objective)
    for name in run.metrics.diagnostics:
        find("diagnostics", name)(snapshot)


def _started(run: RunConfig) -> tuple[TrainState, Objective]:
    """A run's model and optimizer before the first step, and its loss."""
    device = resolve_device(run.device)
    model = build_model(run, device)
    state = TrainState(model, run.optim.build(model.named_parameters()), device)
    return state, Objective(model, run.loss, device, run.precision)


def _snapshot(run: RunConfig, state: TrainState, objective: Objective) -> Snapshot:
    """What diagnostics look at, on random tokens."""
    parts = max(1, run.data.batch_size // PARTS)
    batches = [each.expand(parts, -1) for each in _random_tokens(run, (PARTS, 1, run.data.sequence_length))]
    closures = tuple(lambda each=each: objective(each, each) for each in batches)
    return state.snapshot(run.data.sequence_length, closures, lambda: batches[0])


def _random_tokens(run: RunConfig, size: tuple[int, ...]) -> Tensor:
    return torch.randint(run.model.vocab_size or 1, size, generator=torch.Generator().manual_seed(0))


def _least_seconds(work: Callable[[], object]) -> float | None:
    """Of a second's work, at least two times: the least disturbed one counts; None if it finds nothing."""
    taken: list[float] = []
    while len(taken) < 2 or (len(taken) < 10 and sum(taken) < 1.0):
        started = time.perf_counter()
        if not work():
            return None
        taken.append(time.perf_counter() - started)
    return min(taken)


def _pass_seconds(run: RunConfig, threads: int) -> float:
    """Forward and backward pass of one step on random tokens [s]."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        state, objective = _started(run)
        tokens = _random_tokens(run, (run.data.batch_size // run.data.micro_batches, run.data.sequence_length))
        return run.data.micro_batches * time_pass(objective, state.model, (tokens, tokens))
    finally:
        torch.set_num_threads(before)
