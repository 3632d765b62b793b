"""What a grid costs besides training: starting, planning, reading data, building models, saving, gathering, reporting.

    python benchmarks/grid_overhead.py [--json FILE]

Two measurements of the same grid, 12 runs of 12 layers x 64, 150 steps of 8 x 64 tokens. In this process, with a clock
around the training loop and around its checkpoints: what a run spends besides. With two worker processes: the wall time
times the processes, less what they spent in runs. About three minutes on two quiet cores. The aim is 2 % in all.
"""

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from spikeless.experiments.analysis.comparison import Comparison
from spikeless.experiments.compare import compare
from spikeless.recipes import compose
from spikeless.training import loop

AIM = 0.02
JOBS = 2
ARMS, RATES, SEEDS = "baseline; scaled_embed; mlra", (3e-3, 1e-2), 2
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


def grid(jobs: int, seeds: int) -> tuple[Comparison, float]:
    """The grid with so many processes, and its wall time [s]."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = compare(compose("deep_nano"), ARMS, folder, lrs=RATES, seeds=seeds, assignments=SETTINGS, jobs=jobs)
        return done, time.perf_counter() - started


def in_runs(comparison: Comparison) -> float:
    """Time that processes spent in runs [s]."""
    return sum(each.seconds or 0.0 for each in comparison.outcomes)


def main(arguments: list[str]) -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    grid(1, 1)  # fills the cache and imports everything
    training, saving = [0.0], [0.0]
    with clock(loop._Trainer, "train", training), clock(loop._Trainer, "_save", saving):
        alone, _ = grid(1, 1)
    inside = 1 - (training[0] - saving[0]) / in_runs(alone)
    together, wall = grid(JOBS, SEEDS)
    around = 1 - in_runs(together) / (JOBS * wall)
    overhead = 1 - (1 - inside) * (1 - around)
    found = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "runs": len(together.outcomes),
        "seconds_per_run": in_runs(together) / len(together.outcomes),
        "inside_runs": inside,
        "around_runs": around,
        "overhead": overhead,
    }
    if "--json" in arguments:
        Path(arguments[arguments.index("--json") + 1]).write_text(json.dumps(found, indent=2) + "\n")
    table = Table(
        "what", "share of the time", title=f"{found['runs']} runs of {found['seconds_per_run']:.1f} s, {JOBS} jobs"
    )
    table.add_row("in runs, but not training: data, model, checkpoint, outcome", f"{inside:.1%}")
    table.add_row("around runs: start of processes, plan, pace, report, waiting for the last one", f"{around:.1%}")
    table.add_row(f"all of it (aim {AIM:.0%})", f"{overhead:.1%}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
