"""Compare techniques: the same data in the same order from the same seeds, one run folder per cell of a grid."""

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from spikeless.config import replace_at, to_dict
from spikeless.data import prepare
from spikeless.errors import SpikelessWarning, UserError
from spikeless.evaluation import LambadaExample
from spikeless.experiments.analysis.comparison import About, Comparison, read_comparison
from spikeless.experiments.analysis.derived import derived_json
from spikeless.experiments.analysis.outcome import Outcome
from spikeless.experiments.cell import is_done, refuse_other
from spikeless.experiments.folder import Study, earlier_cells, named_modules
from spikeless.experiments.gathering import Contents, gather
from spikeless.experiments.grid import Axes, Cell, interleaved, over_seeds, plan, resolved, settled, with_fitting_warmup
from spikeless.experiments.pace import Pace, measure_pace, reading_seconds
from spikeless.experiments.presentation.page import write_comparison_page
from spikeless.experiments.scoring import scorings
from spikeless.experiments.task import Event, Training
from spikeless.experiments.workers import Workers
from spikeless.files import locked, read_json, write_json
from spikeless.optim.schedules import largest_factor
from spikeless.run import RunConfig
from spikeless.training.build import build_model, fill_vocabulary
from spikeless.training.environment import resolve_device
from spikeless.training.objective import choose_precision

__all__ = ["Watch", "compare"]

GRID = "grid.json"
COMPARISON = "comparison.json"
REPORT = "report.html"
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

    The runs that earlier calls left in the folder belong to the comparison too: they are of the same study, which means
    that they differ from these in arm, learning rate, depth, width and seed alone. A run that becomes unhealthy or dies
    is recorded as such and stops no other. Interrupted by Ctrl-C, SIGTERM, SIGHUP or SIGUSR1, the runs at work save
    themselves, and what is there is returned.

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
        UserError: a wrong arm or configuration; arms that would differ in more than their techniques; a schedule that
            never comes to its peak; a folder with runs of another study.

    Warns:
        SpikelessWarning: the recipe's warm-up was scaled to fit into the steps; a run in the folder is left out.
    """
    if add_seeds < 0:
        raise UserError(f"--add-seeds {add_seeds} is out of range; use a whole number from 0")
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs {jobs} is out of range; use a whole number from 1")
    path = Path(folder)
    run, remark = with_fitting_warmup(run, assignments)
    axes = Axes(lrs=tuple(lrs), depths=tuple(depths), widths=tuple(widths), seeds=seeds)
    planned = plan(run, arms, path, replace(axes, seeds=1), assignments)  # what is wrong is said before anything else
    if (path / "run.json").exists():
        raise UserError(f"{path} is the folder of a single run; choose another --out")
    with locked(path):
        grid = NEW_GRID | (read_json(path / GRID, "seeds", "precision") if (path / GRID).exists() else {})
        contents = _contents(path, settled(run, assignments), planned, grid, seeds, add_seeds)
        remarks = tuple(filter(None, (remark, *contents.remarks)))
        for each in remarks:
            warnings.warn(each, SpikelessWarning, stacklevel=2)
        cells, base = contents.cells, contents.study.base
        grid["reading_seconds"] = grid["reading_seconds"] or reading_seconds(cells[0].run)
        write_json(path / GRID, grid)
        news = _News(watch)
        if todo := [cell for cell in cells if not is_done(cell)]:
            goes_on = grid["seconds"] and jobs in (None, grid["jobs"])  # with as many threads, for the same bits
            pace = measure_pace(todo, grid["jobs"], grid["threads"]) if goes_on else measure_pace(todo, jobs)
            grid |= {"jobs": pace.jobs, "threads": pace.threads}
            if watch:
                watch.begin(todo, [cell for cell in cells if is_done(cell)], pace)
        stopped_by = None
        at_once = min(grid["jobs"], len(todo or cells))
        with Workers(at_once, grid["threads"]) as workers:
            if todo:
                started, tasks = time.perf_counter(), [Training(cell=cell) for cell in interleaved(todo, at_once)]
                try:
                    stopped_by = workers.run(tasks, news.tell)
                finally:
                    grid["seconds"] += time.perf_counter() - started
                    write_json(path / GRID, grid)
            comparison = gather(
                contents, news.crashed, _about(contents, grid, assignments, command, (*remarks, *contents.losses))
            )
            if not stopped_by:
                tasks = scorings(comparison, contents.readable, base, contents.study.trusted, lambada)
                news.scores |= {task.cell.folder.name: known for task in tasks if (known := task.known()) is not None}
                unknown = [task for task in tasks if task.cell.folder.name not in news.scores]
                if unknown and watch:
                    watch.begin_scoring([task.cell for task in unknown])
                stopped_by = workers.run(unknown, news.tell)
        outcomes = tuple(replace(each, scores=news.scores.get(each.run, each.scores)) for each in comparison.outcomes)
        comparison = replace(comparison, outcomes=outcomes)
        comparison.write(path / COMPARISON, derived_json(comparison))
        write_comparison_page(comparison, path / REPORT)
    if stopped_by and watch:
        watch.interrupted(stopped_by)
    return comparison


class _News:
    """Remembers what is told of the cells, and tells it on."""

    def __init__(self, watch: Watch | None) -> None:
        self._watch = watch
        self.crashed: dict[str, Outcome] = {}
        self.scores: dict[str, dict[str, float]] = {}

    def tell(self, event: Event) -> None:
        """News of a cell."""
        if event.outcome and event.outcome.state == "crashed":
            self.crashed[event.cell.folder.name] = event.outcome
        if event.scores:
            self.scores[event.cell.folder.name] = event.scores
        if self._watch:
            self._watch.tell(event)


def _contents(
    folder: Path, base: RunConfig, planned: Sequence[Cell], grid: dict[str, Any], seeds: int, add_seeds: int
) -> Contents:
    """What is to be done in the folder and what lies there; precision, seeds and study are noted in `grid`.

    Raises:
        UserError: a run of another study is there.
    """
    spec = base.data
    data = prepare(spec.spec, spec.tokenizer, validation_fraction=spec.validation_fraction)
    base, first = (fill_vocabulary(each, data) for each in (base, planned[0].run))
    if first.precision != "auto" or not grid["precision"]:
        grid["precision"] = _precision(first)
    base = replace_at(base, {"precision": grid["precision"]})

    def cells_of(count: int) -> list[Cell]:
        return resolved(over_seeds(planned, count), grid["precision"], base.model.vocab_size)

    cells = cells_of(max(seeds, grid["seeds"]))
    if add_seeds and all(map(is_done, cells)):
        cells = cells_of(max(seeds, grid["seeds"]) + add_seeds)
    trusted = frozenset[str]().union(*(named_modules(cell.run) for cell in cells))
    for cell in cells:
        refuse_other(cell, trusted, data.data_hash)
    study = Study(base=base, data_hash=data.data_hash, trusted=trusted)
    names = {cell.folder.name for cell in cells}
    earlier = read_comparison(folder / COMPARISON) if (folder / COMPARISON).exists() else None
    others, left_out = earlier_cells(folder, study, names)
    contents = Contents(
        folder=folder,
        study=study,
        cells=cells,
        others=others,
        earlier=earlier,
        remarks=tuple(left_out),
        losses=tuple(f"{each.data}: {each.loss}" for each in data.sources if each.loss),
    )
    if "study" in grid and (others or contents.gone):
        study.refuse(f"{folder} holds a grid", study.differences(*study.read(grid["study"])))
    grid["seeds"] = max(cell.run.seed for cell in cells) - first.seed + 1
    grid["study"] = to_dict(base)
    return contents


def _about(
    contents: Contents, grid: Mapping[str, Any], assignments: Sequence[str], command: str, remarks: tuple[str, ...]
) -> About:
    """The circumstances of this call."""
    run = contents.study.base
    return About(
        recipe=run.recipe,
        command=command,
        data=run.data.spec,
        tokenizer=run.data.tokenizer,
        vocab_size=run.model.vocab_size or 0,
        steps=run.steps,
        tokens_per_step=run.data.batch_size * run.data.sequence_length,
        precision=grid["precision"],
        settings=tuple(assignments),
        remarks=remarks,
        reached=largest_factor(run.schedule, run.steps),
        reading_seconds=grid["reading_seconds"],
        jobs=min(grid["jobs"], len(contents.cells)),
        threads=grid["threads"],
        seconds=grid["seconds"],
    )


def _precision(run: RunConfig) -> str:
    """One precision for all cells: "auto" is measured once, on the first."""
    if run.precision != "auto":
        return run.precision
    device = resolve_device(run.device)
    size = run.data.batch_size // run.data.micro_batches
    tokens = torch.zeros(size, run.data.sequence_length, dtype=torch.int64)
    return choose_precision("auto", build_model(run, device), run.loss, device, (tokens, tokens))[0]
