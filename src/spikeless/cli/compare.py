"""`spikeless compare`."""

import math
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import spikeless.experiments.compare
from spikeless.cli._options import (
    Data,
    Device,
    PrecisionOption,
    Recipe,
    Set,
    Tokenizer,
    described_run,
    output_folder,
    refuse_twice,
)
from spikeless.evaluation import read_lambada
from spikeless.experiments.compare import REPORT
from spikeless.experiments.grid import Cell, parse_numbers
from spikeless.experiments.pace import Pace
from spikeless.experiments.presentation.terminal import render
from spikeless.experiments.task import Event
from spikeless.training.interrupt import exit_code
from spikeless.words import counted, duration

__all__ = ["compare"]

SECONDS_BETWEEN_LINES = 60.0
"""Of a log file, while no run ends [s]."""


def compare(
    recipe: Recipe,
    arms: Annotated[
        str, typer.Option("--arms", help='Arms separated by ";": "baseline; mlra; mlra(rank=16)+scaled_embed".')
    ],
    lrs: Annotated[str | None, typer.Option("--lrs", help="Peak learning rates: 1e-3,3e-3,1e-2.")] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="Runs per cell, with seeds 0, 1, ….")] = 1,
    steps: Annotated[int | None, typer.Option("--steps", help="Optimizer steps of each run.")] = None,
    depths: Annotated[str | None, typer.Option("--depths", help="Numbers of layers: 12,24,48.")] = None,
    widths: Annotated[str | None, typer.Option("--widths", help="Widths of the residual stream: 64,128.")] = None,
    assignments: Set = None,
    data: Data = None,
    tokenizer: Tokenizer = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", help="Processes at a time; what is fastest is measured if not given.", min=1)
    ] = None,
    add_seeds: Annotated[
        int, typer.Option("--add-seeds", help="Extend a finished grid by so many seeds per cell.", min=0)
    ] = 0,
    lambada: Annotated[
        Path | None,
        typer.Option("--lambada", help="LAMBADA's passages, as JSON lines: score each arm's best runs on them."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the runs; runs/compare-RECIPE if not given.")
    ] = None,
    device: Device = None,
    precision: PrecisionOption = None,
) -> None:
    """Does a technique help, and at which learning rate? Run again to resume."""
    console = Console(highlight=False, emoji=False)
    run = described_run(recipe, None, None, data, tokenizer, device, precision)
    given = {"data": data, "tokenizer": tokenizer, "device": device, "precision": precision, "steps": steps}
    for option in (name for name, value in given.items() if value is not None):
        refuse_twice(option, assignments)
    settings = [*(assignments or ()), *([f"steps={steps}"] if steps is not None else [])]
    folder = output_folder(out, "compare", run.recipe)
    examples = () if lambada is None else list(read_lambada(lambada))
    with _Live(console) as live:
        comparison = spikeless.experiments.compare.compare(
            run,
            arms,
            folder,
            lrs=parse_numbers(lrs, "--lrs"),
            depths=parse_numbers(depths, "--depths", int),
            widths=parse_numbers(widths, "--widths", int),
            seeds=seeds,
            add_seeds=add_seeds,
            assignments=settings,
            jobs=jobs,
            lambada=examples,
            command=shlex.join(["spikeless", *sys.argv[1:]]),
            watch=live,
        )
    console.print(render(comparison))
    console.print(f"report: {folder / REPORT}", soft_wrap=True, markup=False)
    if live.stopped_by:
        console.print("interrupted; the same command goes on", markup=False)
        raise typer.Exit(exit_code(live.stopped_by))


class _Live:
    """The whole grid as one bar with the time left, and a line for each run at work."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._pace: Pace | None = None
        self._tasks: dict[str, TaskID] = {}
        self._whole: TaskID | None = None
        self._scoring: TaskID | None = None
        self._runs = self._ended = 0
        self._began = self._said = time.monotonic()
        self.stopped_by: str | None = None

    def __enter__(self) -> "_Live":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, cells: Sequence[Cell], kept: Sequence[Cell], pace: Pace) -> None:
        """Say how long it will take."""
        self._pace, self._runs = pace, len(cells)
        self._began = self._said = time.monotonic()
        self._console.print(
            f"{counted(len(cells), 'run')} to train, {len(kept)} finished before: "
            f"about {duration(pace.total(cells))} with "
            f"{counted(min(pace.jobs, len(cells)), 'process')} of {counted(pace.threads, 'thread')} ({pace.source})",
            markup=False,
            soft_wrap=True,
        )
        self._whole = self._progress.add_task(
            "all runs", total=sum(map(pace.seconds, cells)), numbers=f"0/{len(cells)}"
        )

    def begin_scoring(self, cells: Sequence[Cell]) -> None:
        """A bar for the scores."""
        self._scoring = self._progress.add_task("scoring", total=len(cells), numbers="each arm's best runs")

    def tell(self, event: Event) -> None:
        """Show news of a run."""
        if self._scoring is not None:
            if event.scores is not None:
                self._progress.advance(self._scoring)
            return
        assert self._pace is not None and self._whole is not None
        cell, name = event.cell, event.cell.folder.name
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=cell.run.steps, numbers="starting")
        task = self._tasks[name]
        if event.row is not None:
            numbers = "  ".join(f"{key} {event.row[key]:.3f}" for key in ("loss", "val_loss") if key in event.row)
            self._advance(task, event.row["step"], cell)
            self._progress.update(task, completed=event.row["step"], numbers=numbers)
            if self._progress.disable and time.monotonic() - self._said > SECONDS_BETWEEN_LINES:
                self._say(f"{counted(len(self._progress.tasks) - 1, 'run')} at work")
        if event.outcome is not None:
            self._ended += event.outcome.ended
            self._advance(task, cell.run.steps, cell)
            self._progress.remove_task(task)
            self._progress.update(self._whole, numbers=f"{self._ended}/{self._runs}")
            loss = event.outcome.final_val_loss
            ending = event.outcome.state if loss is None or event.outcome.failed else f"validation loss {loss:.4f}"
            self._say(f"{name}: {ending}")

    def interrupted(self, signal_name: str) -> None:
        """Keep it for the exit code."""
        self.stopped_by = signal_name

    def _say(self, news: str) -> None:
        """A line that stays, with the time left by the pace so far."""
        (whole,) = (each for each in self._progress.tasks if each.id == self._whole)
        self._said = time.monotonic()
        done = whole.completed / (whole.total or math.inf)
        left = f", about {duration((self._said - self._began) * (1 - done) / done)} left" if 0 < done < 1 else ""
        text = f"[{self._ended}/{self._runs}] {news}{left}"
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _advance(self, task: TaskID, step: float, cell: Cell) -> None:
        """Move the whole on by what a run has moved on."""
        assert self._pace is not None and self._whole is not None
        (own,) = (each for each in self._progress.tasks if each.id == task)
        done = max(0.0, step - own.completed) / cell.run.steps
        self._progress.advance(self._whole, done * self._pace.seconds(cell))
