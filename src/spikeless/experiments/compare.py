"""Compare techniques: the same data in the same order from the same seeds, one run folder per arm and seed."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from spikeless.data import prepare
from spikeless.errors import UnhealthyRun, UserError
from spikeless.loggers import Logger
from spikeless.recipes import adapt
from spikeless.report import RunRecord, read_run, write_report
from spikeless.run import RunConfig
from spikeless.training.build import build_model, fill_vocabulary
from spikeless.training.environment import resolve_device
from spikeless.training.loop import train
from spikeless.training.objective import choose_precision
from spikeless.training.run_folder import label_of

__all__ = ["Arm", "compare", "parse_arms"]

BASELINE = "baseline"


@dataclass(frozen=True)
class Arm:
    """One run of a comparison."""

    run: RunConfig
    folder: Path

    @property
    def label(self) -> str:
        """The arm's techniques, or "baseline"."""
        return label_of(self.run)


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


def plan(run: RunConfig, arms: str, folder: Path, seeds: int = 1, assignments: Sequence[str] = ()) -> list[Arm]:
    """All runs of a comparison; wrong arms are refused here, before anything is trained.

    Raises:
        UserError: an arm is wrong, or given twice.
    """
    if seeds < 1:
        raise UserError(f"--seeds {seeds} is out of range; use a whole number from 1")
    treated = [adapt(run, techniques, assignments) for techniques in parse_arms(arms)]
    labels = [label_of(each) for each in treated]
    twice = {label for label in labels if labels.count(label) > 1}
    if twice:
        raise UserError(f"--arms names {', '.join(sorted(twice))} more than once")
    return [
        Arm(replace(each, seed=each.seed + seed), folder / f"{_folder_name(label_of(each))}-seed{each.seed + seed}")
        for each in treated
        for seed in range(seeds)
    ]


def compare(
    run: RunConfig,
    arms: str,
    folder: str | Path,
    *,
    seeds: int = 1,
    assignments: Sequence[str] = (),
    command: str | None = None,
    watch: Callable[[Arm], Logger] | None = None,
) -> list[RunRecord]:
    """Train every arm and write `report.html`; finished runs in the folder are kept, begun ones resumed.

    An arm that becomes unhealthy is reported as such and does not stop the others.

    Args:
        run: the baseline.
        arms: see `parse_arms`.
        folder: one run folder per arm and seed goes in here.
        seeds: runs per arm, with seeds run.seed, run.seed + 1, …
        assignments: `path=value` for every arm; refused where an arm's technique sets the same thing.
        command: what the report says it was made with.
        watch: gives a logger for each run.

    Raises:
        UserError: a wrong arm or configuration; arms that would differ in more than their techniques.
    """
    path = Path(folder)
    planned = plan(run, arms, path, seeds, assignments)
    precision = _common_precision(planned)
    records = []
    for arm in planned:
        loggers = [watch(arm)] if watch else []
        try:
            record = train(replace(arm.run, precision=precision), arm.folder, resume=True, loggers=loggers)
        except UnhealthyRun:
            record = read_run(arm.folder)
        records.append(record)
        if record.status.get("state") == "interrupted":
            break
    write_report(records, path / "report.html", title=f"{run.recipe}: {len(records)} runs compared", command=command)
    return records


def _common_precision(arms: Sequence[Arm]) -> str:
    """One precision for all arms: "auto" is measured once, on the first; a finished part keeps its own."""
    run = arms[0].run
    if run.precision != "auto":
        return run.precision
    for arm in arms:
        if (arm.folder / "run.json").exists():
            return read_run(arm.folder).config["precision"]
    device = resolve_device(run.device)
    data = prepare(run.data.spec, run.data.tokenizer, validation_fraction=run.data.validation_fraction)
    first = fill_vocabulary(arms[0].run, data.tokenizer)
    size = run.data.batch_size // run.data.micro_batches
    tokens = torch.zeros(size, run.data.sequence_length, dtype=torch.int64)
    return choose_precision("auto", build_model(first, device), first.loss, device, (tokens, tokens))[0]


def _folder_name(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9.=,+-]+", "_", label).strip("_")
