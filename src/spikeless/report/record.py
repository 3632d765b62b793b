"""A run folder as the report sees it: what was run, what was measured, how it ended."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from spikeless.errors import UserError
from spikeless.files import is_locked, read_json
from spikeless.words import counted

__all__ = ["RunRecord", "Series", "Summary", "read_run"]

TYPE_NAMES = {str: "a string", list: "a list", dict: "an object", int: "a whole number"}
REQUIRED = {"recipe": str, "label": str, "techniques": list, "config": dict, "diff": list}
OPTIONAL = {"parameters": int, "data_hash": str, "init_from": dict, "origin": dict}
NON_FINITE = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}
LAST_ROWS = 10  # the final training loss is their mean
WARM_UP = 0.1  # share of the rows that the throughput leaves out

Series = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One run in a dozen numbers; None where nothing was logged.

    A quantity that was not finite is kept so: NaN or infinity is a result, not a gap.
    """

    steps: int  # done [optimizer steps]
    planned_steps: int | None  # [optimizer steps]
    state: str  # finished, interrupted, unhealthy, failed, running, killed; "unknown" without status.json
    diverged_at: int | None  # first step of the non-finite losses the run ended with
    final_val_loss: float | None  # the last one [nats/token]
    final_val_step: int | None  # where it was taken [optimizer steps]
    val_bits_per_byte: float | None  # the last one, of the same step [bits/byte]
    perplexity: float | None  # exp(final_val_loss) [dimensionless]
    best_val_loss: float | None  # the smallest finite one [nats/token]
    final_train_loss: float | None  # mean of the last 10 rows [nats/token]
    max_grad_norm: float | None  # before clipping; infinite if one was not finite [dimensionless]
    max_grad_norm_step: int | None  # [optimizer steps]
    tev_raw: float | None  # last mean over the vocabulary [dimensionless]
    tev_effective: float | None  # last mean over the vocabulary [dimensionless]
    tev_relative: float | None  # raw mean over raw mean at step 0 [dimensionless]
    parameters: int | None
    tokens_per_second: float | None  # median after the first 10 % of the rows

    @property
    def failed(self) -> bool:
        """Whether the run ended with a non-finite loss or stopped itself."""
        return self.diverged_at is not None or self.state == "unhealthy"

    @property
    def outcome(self) -> str:
        """How the run ended, in words: "diverged at step 90", "running, step 40 of 150"."""
        if self.diverged_at is not None:
            return f"diverged at step {self.diverged_at:,}"
        short = self.planned_steps is not None and self.steps < self.planned_steps
        progress = f", step {self.steps:,} of {self.planned_steps:,}" if short else ""
        return self.state + progress


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run folder, read once.

    Attributes:
        label: the arm: "baseline" or the techniques joined by "+".
        diff: what the arm changed against the plain recipe: rows of `path`, `old`, `new`.
        status: `state`, `step`, `message`; empty if the trainer wrote none.
        data_hash: identifies the tokens that it reads.
        start: the folder whose weights it began with, and their hash; empty without `--init-from`.
        origin: the run and step of which it is a branch; empty if it is none.
        alive: whether a process is at it.
        rows: the lines of metrics.jsonl, in order of step.
        data: by source what was read of it, and what was skipped or repaired, in words; empty for older runs.
        losses: by source what to warn of, where much was skipped or repaired.
    """

    folder: Path
    recipe: str
    label: str
    techniques: tuple[str, ...]
    config: dict[str, Any]
    diff: tuple[dict[str, Any], ...]
    parameters: int | None
    environment: dict[str, Any]
    status: dict[str, Any]
    data_hash: str | None
    start: dict[str, Any]
    origin: dict[str, Any]
    alive: bool
    rows: tuple[dict[str, Any], ...] = field(repr=False)
    data: dict[str, str] = field(default_factory=dict)
    losses: dict[str, str] = field(default_factory=dict)

    @property
    def seed(self) -> int | None:
        """The run's seed, if its config has one."""
        return self.config.get("seed")

    @property
    def branch(self) -> str | None:
        """The run and step of which it is a branch, as `--branch-from` takes them; None if it is none."""
        return f"{self.origin.get('folder')}@{self.origin.get('step')}" if self.origin else None

    @property
    def state(self) -> str:
        """How it stands; a run that says "running" while no process is at it was killed."""
        state = str(self.status.get("state", "unknown"))
        return "killed" if state == "running" and not self.alive else state

    def quantities(self) -> list[str]:
        """Every quantity that some row has, sorted."""
        return sorted({key for row in self.rows for key in row} - {"step"})

    def series(self, key: str) -> Series:
        """Steps and values of a quantity, both empty if it was never logged; of one step the last value."""
        found = {row["step"]: row[key] for row in self.rows if _is_number(row.get(key))}
        return np.array(list(found), dtype=np.int64), np.array(list(found.values()), dtype=np.float64)

    def summary(self) -> Summary:
        """The run in a dozen numbers."""
        return self._summary

    @cached_property
    def _summary(self) -> Summary:
        loss_steps, loss = self.series("loss")
        val_steps, val_loss = self.series("val_loss")
        finite_val = val_loss[np.isfinite(val_loss)]
        throughput = self.series("tokens_per_second")[1]
        norm_step, norm = _largest(self.series("grad_norm"))
        planned = self.config.get("steps")
        final_val = _last(val_loss)
        with np.errstate(over="ignore"):
            perplexity = None if final_val is None else float(np.exp(final_val))
        return Summary(
            steps=int(loss_steps[-1]) if loss_steps.size else 0,
            planned_steps=planned if isinstance(planned, int) else None,
            state=self.state,
            diverged_at=_diverged_at(loss_steps, loss) or _diverged_at(val_steps, val_loss),
            final_val_loss=final_val,
            final_val_step=int(val_steps[-1]) if val_steps.size else None,
            val_bits_per_byte=_at(self.series("val_bits_per_byte"), val_steps),
            perplexity=perplexity,
            best_val_loss=float(finite_val.min()) if finite_val.size else None,
            final_train_loss=float(loss[-LAST_ROWS:].mean()) if loss.size else None,
            max_grad_norm=norm,
            max_grad_norm_step=norm_step,
            tev_raw=_last(self.series("tev/mean")[1]),
            tev_effective=_last(self.series("tev/effective_mean")[1]),
            tev_relative=_last(self.series("tev/relative")[1]),
            parameters=self.parameters,
            tokens_per_second=_median(throughput[int(WARM_UP * throughput.size) :]),
        )


def read_run(folder: Path) -> RunRecord:
    """Read a run folder, also one whose run is still in progress.

    Raises:
        UserError: not a run folder, or one of its files is damaged.
    """
    folder = Path(folder)
    if not (folder / "run.json").is_file():
        raise UserError(
            f"{folder} is not a run folder: it has no run.json; "
            "give the folder that `spikeless train` wrote, the one with run.json and metrics.jsonl in it"
        )
    run = _object(folder / "run.json")
    for name, kind in {**REQUIRED, **{name: OPTIONAL[name] for name in OPTIONAL if run.get(name) is not None}}.items():
        if not isinstance(run.get(name), kind):
            raise UserError(f"{folder / 'run.json'}: {name!r} must be {TYPE_NAMES[kind]}, got {run.get(name)!r}")
    if not all(isinstance(each, dict) and {"path", "old", "new"} <= each.keys() for each in run["diff"]):
        raise UserError(f"{folder / 'run.json'}: each entry of 'diff' must have path, old and new")
    return RunRecord(
        folder=folder,
        recipe=run["recipe"],
        label=run["label"],
        techniques=tuple(run["techniques"]),
        config=run["config"],
        diff=tuple(run["diff"]),
        parameters=run.get("parameters"),
        environment=_object(folder / "environment.json", optional=True),
        status=_object(folder / "status.json", optional=True),
        data_hash=run.get("data_hash"),
        start=run.get("init_from") or {},
        origin=run.get("origin") or {},
        alive=is_locked(folder),
        rows=_read_rows(folder / "metrics.jsonl"),
        data={each["data"]: _described(each) for each in run.get("sources", ())},
        losses={each["data"]: each["loss"] for each in run.get("sources", ()) if each.get("loss")},
    )


def _described(source: dict[str, Any]) -> str:
    """What was read of a source."""
    parts = [source["selection"]] if source["selection"] else []
    for name in ("train", "validation"):
        part = source[name]
        skipped = ", ".join(f"{kind} {count:,}" for kind, count in part["skipped"].items())
        lost = f", skipped or repaired: {skipped}" if skipped else ""
        parts.append(f"{name}: {counted(part['documents'], 'document')}, {counted(part['tokens'], 'token')}{lost}")
    return "; ".join(parts)


def _object(path: Path, optional: bool = False) -> dict[str, Any]:
    """The JSON object in a file; empty if the file is optional and missing."""
    if optional and not path.is_file():
        return {}
    data = read_json(path)
    if not isinstance(data, dict):
        raise UserError(f"{path} must hold a JSON object, got {type(data).__name__}")
    return data


def _read_rows(path: Path) -> tuple[dict[str, Any], ...]:
    """The lines of a metrics file: a half-written last one is left out, a rewound run's later lines win."""
    if not path.is_file():  # a run that ended before its first step
        return ()
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            step = row["step"] + 0
        except (ValueError, TypeError, KeyError):
            if number == len(lines):
                break
            raise UserError(
                f"{path}, line {number}: expected a JSON object with an integer 'step', got {line[:60]!r}"
            ) from None
        while rows and rows[-1]["step"] > step:  # resumed from an earlier step: the abandoned rows go
            rows.pop()
        rows.append(
            {key: NON_FINITE.get(value, value) if isinstance(value, str) else value for key, value in row.items()}
        )
    return tuple(rows)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _last(values: np.ndarray) -> float | None:
    return float(values[-1]) if values.size else None


def _at(series: Series, steps: np.ndarray) -> float | None:
    """The last value, if it was taken at the last of `steps`."""
    return float(series[1][-1]) if series[0].size and steps.size and series[0][-1] == steps[-1] else None


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if values.size else None


def _largest(series: Series) -> tuple[int | None, float | None]:
    """Step and value of the maximum, where what is not finite counts as infinite."""
    steps, values = series
    if not values.size:
        return None, None
    values = np.where(np.isfinite(values), values, np.inf)
    index = int(values.argmax())
    return int(steps[index]), float(values[index])


def _diverged_at(steps: np.ndarray, values: np.ndarray) -> int | None:
    """The first step of the non-finite values at the end of a series; None if it ends finite."""
    finite = np.flatnonzero(np.isfinite(values))
    first = int(finite[-1]) + 1 if finite.size else 0
    return int(steps[first]) if first < values.size else None
