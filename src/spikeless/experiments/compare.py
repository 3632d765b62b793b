"""Compare techniques: the same data in the same order from the same seeds, one run folder per cell of a grid."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from spikeless.config import diff, replace_at
from spikeless.data import prepare
from spikeless.errors import UserError
from spikeless.evaluation import LambadaExample
from spikeless.experiments.analysis.comparison import About, Comparison
from spikeless.experiments.analysis.derived import derived_json
from spikeless.experiments.analysis.outcome import Outcome
from spikeless.experiments.cell import is_done, outcome_at, refuse_other
from spikeless.experiments.grid import BASELINE, Axes, Cell, over_seeds, plan, resolved
from spikeless.experiments.pace import Pace, measure_pace, reading_seconds
from spikeless.experiments.presentation.page import write_comparison_page
from spikeless.experiments.scoring import scorings
from spikeless.experiments.task import Event, Training
from spikeless.experiments.workers import Workers
from spikeless.files import locked, read_json, write_json
from spikeless.run import RunConfig
from spikeless.training.build import build_model, fill_vocabulary
from spikeless.training.environment import describe_environment, resolve_device
from spikeless.training.estimate import flops_per_token
from spikeless.training.objective import choose_precision

__all__ = ["Watch", "compare"]

GRID = "grid.json"
COMPARISON = "comparison.json"
REPORT = "report.html"
OF_ONE_RUN = ("seed", "precision_seconds")
NEW_GRID: dict[str, Any] = {"seeds": 0, "precision": "", "seconds": 0.0, "jobs": 1, "threads": 1, "reading_seconds": {}}


class Watch(Protocol):
    """Is told how a grid goes."""

    def begin(self, cells: Sequence[Cell], kept: Sequence[Cell], pace: Pace) -> None:
        """The cells to train now, those that are done already, and how fast it will go."""
        ...

    def begin_scoring(self, cells: Sequence[Cell]) -> None:
        """The trained cells to score now."""
        ...

    def tell(self, event: Event) -> None:
        """News of a cell."""
        ...

    def interrupted(self, signal_name: str) -> None:
        """A signal stopped the grid; the same command goes on with it."""
        ...


def compare(
    run: RunConfig,
    arms: str,
    folder: str | Path,
    *,
    lrs: Sequence[float] = (),
    depths: Sequence[int] = (),
    widths: Sequence[int] = (),
    seeds: int = 1,
    add_seeds: int = 0,
    assignments: Sequence[str] = (),
    jobs: int | None = None,
    lambada: Sequence[LambadaExample] = (),
    command: str = "",
    watch: Watch | None = None,
) -> Comparison:
    """Train every arm at every learning rate, depth, width and seed; finished runs are kept, begun ones resumed.

    A run that becomes unhealthy or dies is recorded as such and stops no other. Interrupted by Ctrl-C, SIGTERM, SIGHUP
    or SIGUSR1, the runs at work save themselves, and what is there is returned.

    Args:
        run: the baseline.
        arms: see `parse_arms`.
        folder: one run folder per cell goes in here, and `comparison.json`.
        lrs: peak learning rates; the run's own if empty.
        depths: layers; the run's own if empty.
        widths: of the residual stream [dimensions]; the run's own if empty.
        seeds: runs per cell, with seeds run.seed, run.seed + 1, …; a grid that has more already keeps them.
        add_seeds: so many more than it has, if all that it has are finished.
        assignments: `path=value` for every arm; refused where an arm's technique or an axis sets the same thing.
        jobs: processes at a time; what is fastest is measured if None.
        lambada: passages on which the runs at each arm's best learning rate are scored; none if empty.
        command: with which this was asked for.
        watch: is told how it goes.

    Raises:
        UserError: a wrong arm or configuration; arms that would differ in more than their techniques.
    """
    if add_seeds < 0:
        raise UserError(f"--add-seeds {add_seeds} is out of range; use a whole number from 0")
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs {jobs} is out of range; use a whole number from 1")
    path = Path(folder)
    axes = Axes(lrs=tuple(lrs), depths=tuple(depths), widths=tuple(widths), seeds=seeds)
    planned = plan(run, arms, path, replace(axes, seeds=1), assignments)  # what is wrong is said before anything else
    first = planned[0].run
    with locked(path):
        grid = NEW_GRID | (read_json(path / GRID, "seeds", "precision") if (path / GRID).exists() else {})
        spec = first.data
        data = prepare(spec.spec, spec.tokenizer, validation_fraction=spec.validation_fraction)
        first = fill_vocabulary(first, data.tokenizer)
        if first.precision != "auto" or not grid["precision"]:
            grid["precision"] = _precision(first)

        def cells_of(count: int) -> list[Cell]:
            return resolved(over_seeds(planned, count), grid["precision"], first.model.vocab_size)

        cells = cells_of(max(seeds, grid["seeds"]))
        if add_seeds and all(map(is_done, cells)):
            cells = cells_of(max(seeds, grid["seeds"]) + add_seeds)
        for cell in cells:
            refuse_other(cell)
        grid["seeds"] = max(cell.run.seed for cell in cells) - first.seed + 1
        grid["reading_seconds"] = grid["reading_seconds"] or reading_seconds(cells[0].run)
        write_json(path / GRID, grid)
        todo = [cell for cell in cells if not is_done(cell)]
        crashed: dict[str, Outcome] = {}
        scores: dict[str, dict[str, float]] = {}

        def tell(event: Event) -> None:
            if event.outcome and event.outcome.state == "crashed":
                crashed[event.cell.folder.name] = event.outcome
            if event.scores:
                scores[event.cell.folder.name] = event.scores
            if watch:
                watch.tell(event)

        if todo:
            begun = grid["jobs"] if grid["seconds"] else None  # so that a resumed grid has the same bits
            pace = measure_pace(todo, jobs if jobs is not None else begun)
            grid |= {"jobs": pace.jobs, "threads": pace.threads}
            if watch:
                watch.begin(todo, [cell for cell in cells if is_done(cell)], pace)
        stopped_by = None
        with Workers(grid["jobs"], grid["threads"]) as workers:
            if todo:
                started = time.perf_counter()
                try:
                    stopped_by = workers.run([Training(cell=cell) for cell in todo], tell)
                finally:
                    grid["seconds"] += time.perf_counter() - started
                    write_json(path / GRID, grid)
            comparison = _gather(cells, crashed, first, grid, assignments, command)
            if not stopped_by and all(each.ended for each in comparison.outcomes):
                tasks = scorings(comparison, cells, first, lambada)
                scores |= {task.cell.folder.name: known for task in tasks if (known := task.known()) is not None}
                unknown = [task for task in tasks if task.cell.folder.name not in scores]
                if unknown and watch:
                    watch.begin_scoring([task.cell for task in unknown])
                stopped_by = workers.run(unknown, tell)
        outcomes = tuple(replace(each, scores=scores.get(each.run, each.scores)) for each in comparison.outcomes)
        comparison = replace(comparison, outcomes=outcomes)
        comparison.write(path / COMPARISON, derived_json(comparison))
        write_comparison_page(comparison, path / REPORT)
    if stopped_by and watch:
        watch.interrupted(stopped_by)
    return comparison


def _gather(
    cells: Sequence[Cell],
    crashed: Mapping[str, Outcome],
    run: RunConfig,
    grid: Mapping[str, Any],
    assignments: Sequence[str],
    command: str,
) -> Comparison:
    """What is on the disk now, as one comparison."""
    flops = {}
    for cell in cells:
        key = cell.arm, cell.shape
        if key not in flops:
            flops[key] = flops_per_token(build_model(cell.run, "meta"), run.data.sequence_length)
    outcomes = [
        crashed.get(cell.folder.name) or outcome_at(cell, flops_per_token=flops[cell.arm, cell.shape]) for cell in cells
    ]
    about = About(
        recipe=run.recipe,
        command=command,
        data=run.data.spec,
        tokenizer=run.data.tokenizer,
        vocab_size=run.model.vocab_size or 0,
        steps=run.steps,
        tokens_per_step=run.data.batch_size * run.data.sequence_length,
        precision=grid["precision"],
        settings=tuple(assignments),
        changes=_changes(cells),
        reading_seconds=grid["reading_seconds"],
        jobs=grid["jobs"],
        threads=grid["threads"],
        seconds=grid["seconds"],
        environment=_environment(cells) or describe_environment(resolve_device(run.device)),
    )
    return Comparison(about=about, outcomes=tuple(outcomes))


def _environment(cells: Sequence[Cell]) -> dict[str, Any]:
    """Where the runs were computed, with every value that differs between them; empty if none was begun."""
    files = [cell.folder / "environment.json" for cell in cells]
    found = [read_json(file) for file in files if file.exists()]
    keys = [key for key in (found[0] if found else {}) if key not in OF_ONE_RUN]
    values = {key: list(dict.fromkeys(str(each.get(key)) for each in found)) for key in keys}
    return {key: ", ".join(each) for key, each in values.items()}


def _changes(cells: Sequence[Cell]) -> dict[str, tuple[str, ...]]:
    """By arm, what differs from the first one at the same shape, learning rate and seed."""
    base = next((cell.run for cell in cells if cell.arm == BASELINE), cells[0].run)
    own = {"techniques": (), "seed": base.seed, "optim.lr": base.optim.lr}
    own |= {"model.num_layers": base.model.num_layers, "model.width": base.model.width}
    firsts = {cell.arm: cell.run for cell in reversed(cells) if cell.shape == (base.model.num_layers, base.model.width)}
    arms = dict.fromkeys(cell.arm for cell in cells)
    return {
        arm: tuple(str(each) for each in diff(replace_at(base, {"techniques": ()}), replace_at(firsts[arm], own)))
        for arm in arms
    }


def _precision(run: RunConfig) -> str:
    """One precision for all cells: "auto" is measured once, on the first."""
    if run.precision != "auto":
        return run.precision
    device = resolve_device(run.device)
    size = run.data.batch_size // run.data.micro_batches
    tokens = torch.zeros(size, run.data.sequence_length, dtype=torch.int64)
    return choose_precision("auto", build_model(run, device), run.loss, device, (tokens, tokens))[0]
