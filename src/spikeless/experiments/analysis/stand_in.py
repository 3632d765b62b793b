"""Does TEV stand in for gradient variance? Rank correlations, within runs and across them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spikeless.experiments.analysis.learning_rates import by_arm
from spikeless.experiments.analysis.outcome import Outcome
from spikeless.experiments.analysis.statistics import RankCorrelation, rank_correlation

__all__ = ["FINAL_LOSS", "READINGS", "VARIANCES", "AcrossRuns", "StandIn", "WithinRuns", "point", "stand_in"]

READINGS = ("tev/mean", "tev/std", "tev/effective_mean", "tev/relative")
"""What may stand in."""
VARIANCES = ("gradient_variance/exact/all", "gradient_variance/exact/token_embedding")
"""What it may stand in for."""
FINAL_LOSS = "final_val_loss"

FEWEST_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class WithinRuns:
    """Spearman's correlation across the steps of a run, over runs.

    Both may follow the step without having to do with each other: this says less than the correlation across runs.

    Attributes:
        reading: one of `READINGS`.
        against: one of `VARIANCES`.
        median: over runs; NaN if none has a correlation, as in all that follow but `n`.
        low_quartile: over runs.
        high_quartile: over runs.
        positive: share of the runs whose correlation is above zero [0 to 1].
        n: runs that have a correlation.
        left_out: runs that logged both but at fewer than four steps in common, or one of the two was constant.
    """

    reading: str
    against: str
    median: float
    low_quartile: float
    high_quartile: float
    positive: float
    n: int
    left_out: int = 0


@dataclass(frozen=True, kw_only=True)
class AcrossRuns:
    """Spearman's correlation across runs, each of which is one point.

    Attributes:
        reading: one of `READINGS`, or of `VARIANCES` against the final loss: the mean over a run's steps.
        against: one of `VARIANCES`, or `FINAL_LOSS`, where a run that failed ranks last.
        all: of all runs; NaN for fewer than three.
        within_arms: median over arms (of a depth and width) of the correlation across an arm's own runs: readings of
            differently parametrised embeddings do not compare. None if no arm has one.
        arms: that have one: at least three runs, neither quantity constant.
    """

    reading: str
    against: str
    all: RankCorrelation
    within_arms: float | None
    arms: int


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """All correlations of which anything was logged."""

    within: tuple[WithinRuns, ...] = ()
    across: tuple[AcrossRuns, ...] = ()


def stand_in(outcomes: Sequence[Outcome]) -> StandIn:
    """The rank correlations of TEV, gradient variance and final loss, over the runs that have ended.

    NaN among the logged values is left out. The mean of a gradient variance is the geometric one.
    """
    ended = [outcome for outcome in outcomes if outcome.ended]
    within = [_within(ended, reading, variance) for reading in READINGS for variance in VARIANCES]
    pairs = [(reading, against) for reading in READINGS for against in (*VARIANCES, FINAL_LOSS)]
    pairs += [(variance, FINAL_LOSS) for variance in VARIANCES]
    across = [_across(ended, reading, against) for reading, against in pairs]
    return StandIn(
        within=tuple(each for each in within if each is not None),
        across=tuple(each for each in across if each is not None),
    )


def _within(outcomes: Sequence[Outcome], reading: str, against: str) -> WithinRuns | None:
    logged = [(_logged(outcome, reading), _logged(outcome, against)) for outcome in outcomes]
    found = [_across_steps(x, y) for x, y in logged if x and y]
    if not found:
        return None
    values = [value for value in found if not np.isnan(value)]
    low, median, high = map(float, np.quantile(values, (0.25, 0.5, 0.75))) if values else (np.nan,) * 3
    return WithinRuns(
        reading=reading,
        against=against,
        median=median,
        low_quartile=low,
        high_quartile=high,
        positive=float(np.mean(np.array(values) > 0)) if values else np.nan,
        n=len(values),
        left_out=len(found) - len(values),
    )


def _across_steps(x: Mapping[int, float], y: Mapping[int, float]) -> float:
    steps = [step for step in x if step in y]
    if len(steps) < FEWEST_STEPS:
        return np.nan
    return rank_correlation([x[step] for step in steps], [y[step] for step in steps], resamples=0).value


def _across(outcomes: Sequence[Outcome], reading: str, against: str) -> AcrossRuns | None:
    having = [run for run in outcomes if not np.isnan(point(run, reading)) and not np.isnan(point(run, against))]
    if not having:
        return None

    def correlation(runs: Sequence[Outcome], resamples: int = 2000) -> RankCorrelation:
        x, y = [point(run, reading) for run in runs], [point(run, against) for run in runs]
        return rank_correlation(x, y, resamples=resamples)

    arms = [correlation(runs, resamples=0).value for runs in by_arm(having).values()]
    arms = [value for value in arms if not np.isnan(value)]
    return AcrossRuns(
        reading=reading,
        against=against,
        all=correlation(having),
        within_arms=float(np.median(arms)) if arms else None,
        arms=len(arms),
    )


def point(outcome: Outcome, key: str) -> float:
    """What a quantity is in a run as a whole; NaN where nothing was logged."""
    if key == FINAL_LOSS:
        return outcome.final_loss if np.isfinite(outcome.final_loss) else np.inf
    values = np.array(list(_logged(outcome, key).values()))
    if not values.size:
        return np.nan
    if key not in VARIANCES:
        return float(values.mean())
    with np.errstate(divide="ignore", invalid="ignore"):  # a variance of 0 makes the geometric mean 0
        return float(np.exp(np.log(values).mean()))


def _logged(outcome: Outcome, key: str) -> dict[int, float]:
    """The values by step, but for NaN."""
    curve = outcome.curves.get(key)
    if curve is None:
        return {}
    return {step: value for step, value in zip(curve.steps, curve.values, strict=True) if not np.isnan(value)}
