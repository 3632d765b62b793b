"""What a grid costs besides training, phase by phase.

    python benchmarks/grid_overhead.py [--json FILE]

Two measurements of the same grid, 24 runs of 12 layers x 64, 150 steps of 8 x 64 tokens. In this process, with a clock
around the training loop and around its checkpoints: what a run spends besides. With two worker processes: the wall time
of each phase, and in the training phase the time times the processes, less what they spent in runs. Starting,
planning, pace and the page take the same time whatever the number of runs, so a larger grid of this shape is computed
from this one. About four minutes on two quiet cores. The aim is 2 % in all.
"""

import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from spikeless.experiments.analysis.comparison import Comparison
from spikeless.experiments.compare import compare
from spikeless.experiments.grid import Cell
from spikeless.experiments.pace import Pace
from spikeless.experiments.task import Event
from spikeless.recipes import compose
from spikeless.training import loop

AIM = 0.02
JOBS = 2
ARMS, RATES, SEEDS = "baseline; scaled_embed; mlra", (3e-3, 1e-2), 4
LARGE_ARMS, LARGE_RATES, LARGE_SEEDS = 6, 6, 6
"""The grid that is computed."""
SETTINGS = (
    "steps=150",
    "data.tokenizer=bpe:1024",
    "data.sequence_length=64",
    "model.num_layers=12",
    "model.width=64",
    "model.context_length=64",
    "evaluation.every=0",
    "evaluation.tokens=16384",
    "checkpoint.every=0",
)


@contextmanager
def clock(owner: Any, name: str, spent: list[float]) -> Iterator[None]:
    """Add up the time that a method takes."""
    method = getattr(owner, name)

    def timed(*arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return method(*arguments)
        finally:
            spent[0] += time.perf_counter() - started

    setattr(owner, name, timed)
    try:
        yield
    finally:
        setattr(owner, name, method)


class Phases:
    """When a grid came to which phase."""

    def __init__(self) -> None:
        self.training = self.scoring = self.end = math.nan
        self.scored = 0

    def begin(self, cells: Sequence[Cell], kept: Sequence[Cell], pace: Pace) -> None:
        """Training begins."""
        self.training = time.perf_counter()

    def begin_scoring(self, cells: Sequence[Cell]) -> None:
        """Scoring begins."""
        self.scoring, self.scored = time.perf_counter(), len(cells)

    def tell(self, event: Event) -> None:
        """The last score ends scoring."""
        if event.scores is not None:
            self.end = time.perf_counter()


def grid(jobs: int, seeds: int, phases: Phases | None = None) -> tuple[Comparison, float, float]:
    """The grid with so many processes; when it began and ended [s]."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = compare(
            compose("deep_nano"), ARMS, folder, lrs=RATES, seeds=seeds, assignments=SETTINGS, jobs=jobs, watch=phases
        )
        return done, started, time.perf_counter()


def in_runs(comparison: Comparison) -> float:
    """Time that processes spent in runs [s]."""
    return sum(each.seconds or 0.0 for each in comparison.outcomes)


def main(arguments: list[str]) -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    grid(1, 1)  # fills the cache and imports everything
    training, saving = [0.0], [0.0]
    with clock(loop._Trainer, "train", training), clock(loop._Trainer, "_save", saving):
        alone, *_ = grid(1, 1)
    phases = Phases()
    together, started, ended = grid(JOBS, SEEDS, phases)
    runs, busy = len(together.outcomes), in_runs(together) / JOBS
    inside = busy * (1 - (training[0] - saving[0]) / in_runs(alone))
    seconds = {
        "in runs, but not training: data, model, checkpoint, outcome": inside,
        "plan, data, pace": phases.training - started,
        "start of the processes, waiting for the last run": phases.scoring - phases.training - busy,
        f"scoring {phases.scored} checkpoints": phases.end - phases.scoring,
        "comparison.json and the page": ended - phases.end,
    }
    large_runs = LARGE_ARMS * LARGE_RATES * LARGE_SEEDS
    more = {"in runs": large_runs / runs, "scoring": LARGE_ARMS * LARGE_SEEDS / phases.scored}  # the rest stays
    large = {
        what: took * next((factor for begin, factor in more.items() if what.startswith(begin)), 1.0)
        for what, took in seconds.items()
    }
    trained = (busy - inside) * large_runs / runs
    shares = {what: took / (ended - started) for what, took in seconds.items()}
    large_shares = {what: took / (sum(large.values()) + trained) for what, took in large.items()}
    found = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "runs": runs,
        "seconds_per_run": in_runs(together) / runs,
        "seconds": seconds,
        "shares": shares,
        "overhead": sum(shares.values()),
        "large_runs": large_runs,
        "large_shares": large_shares,
        "large_overhead": sum(large_shares.values()),
    }
    if "--json" in arguments:
        Path(arguments[arguments.index("--json") + 1]).write_text(json.dumps(found, indent=2) + "\n")
    title = f"{runs} runs of {found['seconds_per_run']:.1f} s, {JOBS} jobs, {ended - started:.0f} s"
    table = Table("what", "seconds", "share", f"share of {large_runs} runs, computed", title=title)
    for what, took in seconds.items():
        table.add_row(what, f"{took:.1f}", f"{shares[what]:.1%}", f"{large_shares[what]:.1%}")
    total = f"all of it (aim {AIM:.0%})"
    table.add_row(total, f"{sum(seconds.values()):.1f}", f"{found['overhead']:.1%}", f"{found['large_overhead']:.1%}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
