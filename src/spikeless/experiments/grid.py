"""The grid of a comparison: arms x learning rates x depths x widths x seeds, planned before anything is trained."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spikeless.config import parse_calls, paths, replace_at, to_dict
from spikeless.errors import UserError
from spikeless.files import content_hash
from spikeless.recipes import adapt
from spikeless.run import RunConfig
from spikeless.training.run_folder import label_of

__all__ = [
    "BASELINE",
    "Axes",
    "Cell",
    "config_hash",
    "hash_of",
    "over_seeds",
    "parse_arms",
    "parse_numbers",
    "plan",
    "resolved",
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
    known = set(paths(run))
    settled = adapt(run, (), [each for each in assignments if each.partition("=")[0].strip() in known])
    run = replace_at(run, _measurements(settled))  # assignments come after it
    runs: list[RunConfig] = []
    for depth in axes.depths or (run.model.num_layers,):
        for width in axes.widths or (run.model.width,):
            sized = [f"model.num_layers={depth}"] * bool(axes.depths) + [f"model.width={width}"] * bool(axes.widths)
            treated = [adapt(run, each, [*assignments, *sized]) for each in techniques]
            if own := [label_of(each) for each in treated if axes.lrs and each.optim.lr != settled.optim.lr]:
                raise UserError(f"--lrs and {own[0]} both set optim.lr; leave one of them out")
            labels = [label_of(each) for each in treated]
            if twice := sorted({label for label in labels if labels.count(label) > 1}):
                raise UserError(f"--arms names {', '.join(twice)} more than once")
            runs += [replace_at(each, {"optim.lr": lr}) for each in treated for lr in axes.lrs or (each.optim.lr,)]
    cells = [Cell(run=each, folder=folder / _folder_name(each)) for each in runs]
    names = [cell.folder.name for cell in cells]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two runs would go to {folder / twice[0]}; compare these arms in two calls")
    return over_seeds(cells, axes.seeds)


def over_seeds(cells: Sequence[Cell], seeds: int) -> list[Cell]:
    """Cells of one seed with `seeds` seeds, counted from theirs; all of one seed come before those of the next."""
    runs = [replace(cell.run, seed=cell.run.seed + seed) for seed in range(seeds) for cell in cells]
    folders = [cell.folder.parent for cell in cells] * seeds
    return [Cell(run=run, folder=folder / _folder_name(run)) for run, folder in zip(runs, folders, strict=True)]


def config_hash(config: dict[str, Any]) -> str:
    """A hash of a run's whole configuration, as `to_dict` gives it."""
    return content_hash(json.dumps(config, sort_keys=True, ensure_ascii=False))


def hash_of(run: RunConfig) -> str:
    """The hash of a run's configuration."""
    return config_hash(json.loads(json.dumps(to_dict(run))))


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
