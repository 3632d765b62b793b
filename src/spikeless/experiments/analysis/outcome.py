"""One run of a grid as numbers: what it was, how it ended, what was measured on the way."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import cattrs
import numpy as np

from spikeless.errors import UserError
from spikeless.report import RunRecord

__all__ = ["CONVERTER", "Curve", "Outcome", "SpikeCount", "count_spikes", "outcome_of", "read_outcome"]

POINTS = 60
"""A curve of more points is kept as the means of so many buckets."""

SPIKE_WIDTH = 6.0
"""A spike is this many standard deviations above the mean of the window before it."""
LONGEST_WINDOW = 128

KEPT = (
    "tev/mean",
    "tev/std",
    "tev/effective_mean",
    "tev/effective_std",
    "tev/relative",
    "gradient_variance/exact/all",
    "gradient_variance/exact/token_embedding",
    "update_norm",
    "val_loss",
)
"""Readings that are kept as they were, besides `hidden_variance/*`."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A quantity over optimizer steps; what is not finite is NaN or infinite."""

    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class SpikeCount:
    """Spikes of one quantity: steps whose value exceeds the mean of the `window` steps before it by `width` stds.

    One-sided, population std, the step's own value excluded; a step with less than a window before it is not judged.

    Attributes:
        score: share of the judged steps that are spikes [dimensionless]; a value that is not finite is one.
        count: spikes, where neighbouring spike steps are one [spikes].
        window: [optimizer steps].
        width: [standard deviations].
    """

    score: float
    count: int
    window: int
    width: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run.

    Attributes:
        arm: its techniques, or "baseline".
        lr: peak learning rate.
        depth: layers.
        width: of the residual stream [dimensions].
        seed: of weights and sampling.
        run: name of the run's folder.
        state: finished, unhealthy, crashed, interrupted, failed, killed, running or planned.
        message: why it is unhealthy or crashed, or the signal that stopped it; empty else.
        steps: done [optimizer steps].
        parameters: numbers in the model; None for a run that was never begun, as in all that follow.
        flops_per_token: forward and backward [FLOP/token].
        tokens_per_second: median after the first tenth [tokens/s].
        peak_memory: of the process above what it held when the run began [bytes]; None where it is not known.
        seconds: wall time of the run, all attempts together [s].
        initial_val_loss: before the first step [nats/token].
        final_val_loss: infinite for a run that failed; None for one that has not ended [nats/token].
        final_train_loss: mean of the last ten steps [nats/token].
        diverged_at: first of the non-finite losses that it ended with [optimizer step].
        max_grad_norm: before clipping; infinite if one was not finite.
        max_update_norm: of the logged ones; infinite if one was not finite.
        spikes: of "loss" and "grad_norm".
        curves: "loss" and "grad_norm" in buckets, readings as they are; those of layers at the start and the end.
        scores: what `spikeless eval` says of the final checkpoint, where it was asked.
    """

    arm: str
    lr: float
    depth: int
    width: int
    seed: int
    run: str
    state: str = "planned"
    message: str = ""
    steps: int = 0
    parameters: int | None = None
    flops_per_token: float | None = None
    tokens_per_second: float | None = None
    peak_memory: int | None = None
    seconds: float | None = None
    initial_val_loss: float | None = None
    final_val_loss: float | None = None
    final_train_loss: float | None = None
    diverged_at: int | None = None
    max_grad_norm: float | None = None
    max_update_norm: float | None = None
    spikes: Mapping[str, SpikeCount] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether it ended without a model that can be used."""
        return self.state in ("unhealthy", "crashed") or self.final_val_loss == np.inf

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to do for it."""
        return self.failed or self.state == "finished"

    @property
    def final_loss(self) -> float:
        """The final validation loss; infinite for a run that failed.

        Raises:
            ValueError: it has not ended.
        """
        if not self.ended:
            raise ValueError(f"{self.run} has not ended: {self.state}")
        return np.inf if self.failed or self.final_val_loss is None else self.final_val_loss

    def to_json(self) -> dict[str, Any]:
        """As plain data; see `read_outcome`."""
        return asdict(self)


def read_outcome(data: Mapping[str, Any]) -> Outcome:
    """An outcome from its plain data.

    Raises:
        UserError: it is none.
    """
    try:
        return CONVERTER.structure(data, Outcome)
    except (cattrs.BaseValidationError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"this is not the outcome of a run: {json.dumps(data, default=str)[:80]}…") from error


def outcome_of(record: RunRecord, **known: Any) -> Outcome:
    """The outcome of a run folder.

    Args:
        record: the folder, read.
        known: fields that the folder does not tell.
    """
    summary = record.summary()
    val_steps, val_loss = record.series("val_loss")
    initial = float(val_loss[0]) if val_steps.size and val_steps[0] == 0 else None
    failed, finished = summary.failed, summary.state == "finished"
    readings = [key for key in record.quantities() if key in KEPT or key.startswith("hidden_variance/")]
    curves = {key: _bucketed(*record.series(key)) for key in ("loss", "grad_norm")}
    curves |= {key: _curve(*_ends(key, *record.series(key))) for key in readings}
    updates = record.series("update_norm")[1]
    fields: dict[str, Any] = {
        "lr": float(record.config["optim"]["lr"]),
        "depth": record.config["model"]["num_layers"],
        "width": record.config["model"]["width"],
        "seed": record.config["seed"],
        "run": record.folder.name,
        "arm": record.label,
        "state": summary.state,
        "message": record.status.get("message", ""),
        "steps": summary.steps,
        "parameters": summary.parameters,
        "tokens_per_second": summary.tokens_per_second,
        "initial_val_loss": initial,
        "final_val_loss": np.inf if failed else summary.final_val_loss if finished else None,
        "final_train_loss": summary.final_train_loss,
        "diverged_at": summary.diverged_at,
        "max_grad_norm": summary.max_grad_norm,
        "max_update_norm": _largest(updates),
        "spikes": {key: count_spikes(record.series(key)[1]) for key in ("loss", "grad_norm")},
        "curves": curves,
    }
    return Outcome(**(fields | known))


def count_spikes(values: np.ndarray, window: int | None = None, width: float = SPIKE_WIDTH) -> SpikeCount:
    """Spikes of a quantity that was logged at every step; see `SpikeCount`.

    Args:
        values: one a step.
        window: a quarter of the steps if None, at most 128 (that of OLMo-core), at least 2.
        width: [standard deviations].

    Reference: OLMo 2 (arXiv 2501.00656), with W = 1000 and 7 standard deviations; OLMo-core, with W = 128 and 6.
    """
    window = window or max(2, min(LONGEST_WINDOW, values.size // 4))
    spiking = np.zeros(max(values.size - window, 0), dtype=bool)
    for index in range(spiking.size):
        before, value = values[index : index + window], values[index + window]
        before = before[np.isfinite(before)]
        limit = before.mean() + width * before.std() if before.size else np.inf
        spiking[index] = not np.isfinite(value) or value > limit
    starts = spiking & ~np.concatenate(([False], spiking[:-1])) if spiking.size else spiking
    score = float(spiking.mean()) if spiking.size else 0.0
    return SpikeCount(score=score, count=int(starts.sum()), window=window, width=width)


def _bucketed(steps: np.ndarray, values: np.ndarray) -> Curve:
    """A curve of at most `POINTS` points, each the mean of its bucket at the bucket's last step."""
    buckets = np.array_split(np.arange(values.size), min(POINTS, values.size)) if values.size else []
    return _curve(np.array([steps[each[-1]] for each in buckets]), np.array([values[each].mean() for each in buckets]))


def _curve(steps: np.ndarray, values: np.ndarray) -> Curve:
    """To six digits: a comparison's file holds hundreds of these."""
    return Curve(steps=tuple(map(int, steps)), values=tuple(float(f"{value:.6g}") for value in values))


def _ends(key: str, steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A layer's variance at the start and at the end only: there is one for each layer."""
    if key.startswith("hidden_variance/") and values.size > 2:
        return steps[[0, -1]], values[[0, -1]]
    return steps, values


def _largest(values: np.ndarray) -> float | None:
    return None if not values.size else float(np.where(np.isfinite(values), values, np.inf).max())


def _number(value: Any, _: Any) -> float:
    """A float from JSON, where what is not finite is a string."""
    if isinstance(value, bool) or not (isinstance(value, int | float) or value in ("NaN", "Infinity", "-Infinity")):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _exactly(value: Any, kind: type) -> Any:
    """A value of this very type: cattrs would make a text of anything, and cut a number off."""
    if type(value) is not kind:
        raise ValueError(f"{value!r} is no {kind.__name__}")
    return value


CONVERTER = cattrs.Converter(forbid_extra_keys=True)
"""From plain data; for a whole comparison too."""
CONVERTER.register_structure_hook(float, _number)
CONVERTER.register_structure_hook(str, _exactly)
CONVERTER.register_structure_hook(int, _exactly)
