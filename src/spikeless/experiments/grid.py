"""The grid of a comparison: arms x learning rates x depths x widths x seeds, planned before anything is trained."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spikeless.config import get_at, parse_calls, paths, replace_at
from spikeless.errors import UserError
from spikeless.experiments.analysis.reached import REACHED
from spikeless.optim.schedules import largest_factor
from spikeless.recipes import adapt
from spikeless.run import RunConfig
from spikeless.training.run_folder import label_of

__all__ = [
    "BASELINE",
    "Axes",
    "Cell",
    "cell_in",
    "interleaved",
    "over_seeds",
    "parse_arms",
    "parse_numbers",
    "plan",
    "resolved",
    "settled",
    "with_fitting_warmup",
]

BASELINE = "baseline"
READINGS = 8
"""Diagnostics are read so many times in a run, unless the settings say otherwise."""
DIAGNOSTICS = ("tev", "gradient_variance_free", "gradient_variance_exact", "update_norm", "hidden_variance")
EXACT_PARTS = 4
"""The exact gradient variance needs a batch that divides into so many parts."""


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What varies besides the arm; an empty axis stays as the recipe has it.

    Attributes:
        lrs: peak learning rates.
        depths: layers.
        widths: of the residual stream [dimensions]; the number of heads stays.
        seeds: runs of each, with seeds run.seed, run.seed + 1, ….
    """

    lrs: tuple[float, ...] = ()
    depths: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()
    seeds: int = 1

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise UserError(f"--seeds {self.seeds} is out of range; use a whole number from 1")
        for option, values in (("--lrs", self.lrs), ("--depths", self.depths), ("--widths", self.widths)):
            wrong = [each for each in values if not (math.isfinite(each) and each > 0)]
            if wrong:
                raise UserError(f"{option}: {wrong[0]} is out of range; use positive numbers")
            twice = [each for each in values if values.count(each) > 1]
            if twice:
                raise UserError(f"{option} names {twice[0]:g} more than once")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a comparison, and where it goes."""

    run: RunConfig
    folder: Path

    @property
    def arm(self) -> str:
        """The arm's techniques, or "baseline"."""
        return label_of(self.run)

    @property
    def shape(self) -> tuple[int, int]:
        """Depth [layers] and width [dimensions]."""
        return self.run.model.num_layers, self.run.model.width

    @property
    def place(self) -> dict[str, Any]:
        """What sets it apart: arm, lr, depth, width, seed, run."""
        depth, width = self.shape
        return {
            "arm": self.arm,
            "lr": self.run.optim.lr,
            "depth": depth,
            "width": width,
            "seed": self.run.seed,
            "run": self.folder.name,
        }


def parse_arms(text: str) -> list[list[str]]:
    """Techniques per arm from "baseline; mlra; mlra(rank=16)+scaled_embed".

    Raises:
        UserError: an arm is empty or there is none.
    """
    arms = [each.strip() for each in text.strip().strip(";").split(";")]
    if not all(arms):
        raise UserError(
            f'--arms {text!r}: write arms separated by ";", for example "{BASELINE}; mlra; mlra+scaled_embed"'
        )
    return [[] if each == BASELINE else [each] for each in arms]


def parse_numbers(text: str | None, option: str, kind: type[int] | type[float] = float) -> tuple[Any, ...]:
    """Numbers from "1e-3,3e-3"; nothing from None.

    Raises:
        UserError: what stands there is no such number.
    """
    if text is None:
        return ()
    try:
        return tuple(kind(each) for each in text.split(","))
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        example = "12,24,48" if kind is int else "1e-3,3e-3,1e-2"
        raise UserError(f"{option} {text!r}: write {what} separated by commas, for example {example}") from None


def plan(
    run: RunConfig, arms: str, folder: Path, axes: Axes | None = None, assignments: Sequence[str] = ()
) -> list[Cell]:
    """All runs of a comparison; wrong arms are refused here, before anything is trained.

    One seed of everything comes before the next seed, so that a grid which was stopped early is a fair one.

    Args:
        run: the baseline.
        arms: see `parse_arms`.
        folder: one run folder per cell goes in here.
        axes: what varies besides.
        assignments: `path=value` for every arm; refused where an arm's technique or an axis sets the same thing.

    Raises:
        UserError: an arm is wrong, or given twice; two say the same thing.
    """
    axes = axes or Axes()
    techniques = parse_arms(arms)
    _refuse_double(axes, assignments)
    run = settled(run, assignments)
    runs: list[RunConfig] = []
    for depth in axes.depths or (run.model.num_layers,):
        for width in axes.widths or (run.model.width,):
            sized = [f"model.num_layers={depth}"] * bool(axes.depths) + [f"model.width={width}"] * bool(axes.widths)
            treated = [adapt(run, each, [*assignments, *sized]) for each in techniques]
            if own := [label_of(each) for each in treated if axes.lrs and each.optim.lr != run.optim.lr]:
                raise UserError(f"--lrs and {own[0]} both set optim.lr; leave one of them out")
            labels = [label_of(each) for each in treated]
            if twice := sorted({label for label in labels if labels.count(label) > 1}):
                raise UserError(f"--arms names {', '.join(twice)} more than once")
            for each in treated:
                _refuse_unreached(each)
            runs += [replace_at(each, {"optim.lr": lr}) for each in treated for lr in axes.lrs or (each.optim.lr,)]
    cells = [cell_in(folder, each) for each in runs]
    names = [cell.folder.name for cell in cells]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two runs would go to {folder / twice[0]}; compare these arms in two calls")
    return over_seeds(cells, axes.seeds)


def over_seeds(cells: Sequence[Cell], seeds: int) -> list[Cell]:
    """Cells of one seed with `seeds` seeds, counted from theirs; all of one seed come before those of the next."""
    return [
        cell_in(cell.folder.parent, replace(cell.run, seed=cell.run.seed + seed))
        for seed in range(seeds)
        for cell in cells
    ]


def cell_in(folder: Path, run: RunConfig) -> Cell:
    """The cell that a run is, in the folder of a grid."""
    return Cell(run=run, folder=folder / _folder_name(run))


def settled(run: RunConfig, assignments: Sequence[str] = ()) -> RunConfig:
    """The baseline of a comparison: the run, with what a comparison reads and keeps, and with the settings of all arms.

    Settings of a part that only a technique brings are left to the arms.

    Raises:
        UserError: a setting is wrong.
    """
    known = set(paths(run))
    early = [each for each in assignments if _path(each) in known]
    return adapt(replace_at(run, _measurements(adapt(run, (), early))), (), early)


def with_fitting_warmup(run: RunConfig, assignments: Sequence[str]) -> tuple[RunConfig, str]:
    """The run with a warm-up that fits into as few steps as are asked for, and a sentence about it; else as it is.

    Where the steps are set and the schedule is not, the warm-up keeps its share of the recipe's steps.
    """
    given = [_path(each) for each in assignments]
    if "steps" not in given or any(path.partition(".")[0] == "schedule" for path in given):
        return run, ""
    steps, before = adapt(run, (), [each for each in assignments if _path(each) == "steps"]).steps, run.schedule
    if largest_factor(before, steps) >= 1 or "schedule.warmup_steps" not in paths(run):
        return run, ""
    longer = get_at(run, "schedule.warmup_steps")
    warmup = max(1, min(steps, round(longer * steps / run.steps)))
    return replace_at(run, {"schedule.warmup_steps": warmup}), (
        f"the warm-up of {run.recipe}, {longer} steps of {run.steps}, is longer than {steps} steps: "
        f"scaled in proportion (schedule.warmup_steps={warmup}), so that the learning rates asked for are reached"
    )


def _refuse_unreached(run: RunConfig) -> None:
    """Stop if a run never comes to the learning rate that its results would be named by."""
    reached = largest_factor(run.schedule, run.steps)
    if reached < REACHED:
        warmup = getattr(run.schedule, "warmup_steps", None)  # a schedule from elsewhere need not have one
        remedy, cause = "give more steps, or a schedule that comes to its peak", ""
        if warmup is not None:
            cause = f" (schedule.warmup_steps={warmup})"
        if warmup is not None and warmup > run.steps:
            remedy = (
                f"use schedule.warmup_steps={max(1, run.steps // 10)}, at most {run.steps}, or {warmup} steps or more"
            )
        raise UserError(
            f"{label_of(run)}: in {run.steps} steps the learning rate comes to {reached:.3g} of its peak only{cause}, "
            f"so no result would be of the rate that it is named by; {remedy}"
        )


def interleaved(cells: Sequence[Cell], jobs: int) -> list[Cell]:
    """The cells in an order in which every one of `jobs` workers meets the arms in turn, none of them always first.

    Machines grow warm, and busy with something else: what is compared is measured side by side. One seed of everything
    still comes before the next seed.
    """
    arms = list(dict.fromkeys(cell.arm for cell in cells))
    turns: dict[tuple, list[Cell]] = {}
    for cell in cells:
        turns.setdefault((cell.run.seed, cell.shape, cell.run.optim.lr), []).append(cell)
    same_first = math.lcm(len(arms), jobs) // max(1, len(arms))  # after so many turns workers would meet the same arms
    return [
        cell
        for turn, group in enumerate(turns.values())
        for cell in sorted(group, key=lambda cell: (arms.index(cell.arm) - turn // same_first) % len(arms))
    ]


def _path(assignment: str) -> str:
    return assignment.partition("=")[0].strip()


def _refuse_double(axes: Axes, assignments: Sequence[str]) -> None:
    owners = {"optim.lr": ("--lrs", axes.lrs), "model.num_layers": ("--depths", axes.depths)}
    owners["model.width"] = ("--widths", axes.widths)
    for each in assignments:
        path, _, value = (part.strip() for part in each.partition("="))
        if path == "optim" and any("lr" in call.arguments for call in parse_calls(value, "optimizer")):
            path = "optim.lr"
        option, values = owners.get(path, ("", ()))
        if values:
            raise UserError(f"--set {each} and {option} both set {path}; choose one of them")


def _measurements(run: RunConfig) -> dict[str, Any]:
    """Settings of what a comparison reads and keeps."""
    exact = run.data.batch_size % EXACT_PARTS == 0
    return {
        "metrics.diagnostics": tuple(each for each in DIAGNOSTICS if exact or each != "gradient_variance_exact"),
        "metrics.every": max(1, run.steps // READINGS),
        "metrics.loggers": (),
        "evaluation.every": 0,
        "checkpoint.keep_last": 1,
        "checkpoint.keep_best": 0,
    }


def _folder_name(run: RunConfig) -> str:
    arm = re.sub(r"[^A-Za-z0-9.=,+-]+", "_", label_of(run)).strip("_")
    short = f"{run.optim.lr:g}"
    lr = short if float(short) == run.optim.lr else repr(run.optim.lr)
    return f"{arm}-lr{lr}-{run.model.num_layers}x{run.model.width}-seed{run.seed}"


def resolved(cells: Sequence[Cell], precision: Any, vocab_size: int | None) -> list[Cell]:
    """The cells with what was decided once for all of them."""
    changes = {"precision": precision, "model.vocab_size": vocab_size}
    return [replace(cell, run=replace_at(cell.run, changes)) for cell in cells]
