"""A comparison as rows, one an arm or one a learning rate, that the terminal, the page and the JSON file share."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from spikeless.experiments.analysis.comparison import Comparison
from spikeless.experiments.analysis.costs import Ratio, cost_ratio
from spikeless.experiments.analysis.learning_rates import ArmStudy, by_arm, study_arms
from spikeless.experiments.analysis.outcome import Outcome
from spikeless.experiments.analysis.statistics import Interval, PairedTest, mean_interval, paired_test
from spikeless.experiments.grid import BASELINE

__all__ = ["TEV", "ArmRow", "Extreme", "LrRow", "Spikes", "arm_rows", "baseline_of", "lr_rows", "median"]

TEV = ("tev/mean", "tev/std", "tev/effective_mean", "tev/effective_std", "tev/relative")


@dataclass(frozen=True, kw_only=True)
class Spikes:
    """Spikes of one quantity.

    Attributes:
        score: mean over the seeds at the arm's best learning rate; None if there is none [dimensionless].
        count: all of them there [spikes].
        grid_score: mean over all runs of the arm [dimensionless].
        grid_count: all of them [spikes].
        windows: the smallest and the largest one; a run that ended early has a shorter one [optimizer steps].
        width: [standard deviations].
    """

    score: float | None
    count: int
    grid_score: float
    grid_count: int
    windows: tuple[int, int]
    width: float


@dataclass(frozen=True, kw_only=True)
class Extreme:
    """The largest value of a quantity that a run met.

    Attributes:
        median: over seeds at the arm's best learning rate; None if there is none.
        largest: over all runs of the arm; infinite if one was not finite.
    """

    median: float | None
    largest: float


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """One arm of one depth and width. What is None was not measured, or not yet.

    Attributes:
        arm: its techniques, or "baseline".
        depth: layers.
        width: of the residual stream [dimensions].
        baseline: the arm that differences and ratios refer to.
        runs: planned.
        failed: unhealthy or crashed.
        unfinished: neither finished nor failed.
        best_lr: of the lowest median final validation loss; None also if at every rate half of the runs failed.
        edge: where `best_lr` lies in the grid: "low", "high", "only" or "".
        seeds: that have ended at `best_lr`.
        best_failed: of them.
        median_loss: of the final validation loss at `best_lr` [nats/token].
        loss: its mean over seeds [nats/token].
        perplexity: the exponential of `loss`.
        own_lr: difference of the final validation loss to the baseline, each at its own best rate [nats/token].
        same_lr: likewise, both at the baseline's best rate [nats/token].
        baseline_lr: that rate.
        largest_stable_lr: see `learning_rates.DEFINITIONS`, as the four that follow.
        stable_censored: it is the grid's top.
        headroom: over the baseline's largest stable learning rate.
        headroom_bound: "", "at least", "at most" or "unknown".
        sensitivity: [nats/token].
        parameters: numbers in the model.
        flops_per_token: forward and backward [FLOP/token].
        tokens_per_second: median over runs [tokens/s].
        speeds: the smallest and the largest of them [tokens/s].
        speed_ratio: over the baseline's; None for the baseline itself, or without a pair.
        peak_memory: median over runs [bytes].
        memory_ratio: likewise.
        spikes: of "loss" and "grad_norm".
        diverged: runs that ended with a loss that is not finite.
        first_diverged: the earliest step at which one did [optimizer step].
        grad_norm: the largest gradient norm, before clipping.
        update_norm: the largest of the logged ones.
        tev: last reading of each of `TEV`: median over seeds at `best_lr`.
        hidden_growth: variance of the residual stream after the last block over that before the first, likewise.
        scores: mean over seeds at `best_lr` of what `spikeless eval` says.
    """

    arm: str
    depth: int
    width: int
    baseline: str
    runs: int
    failed: int
    unfinished: int
    best_lr: float | None = None
    edge: str = ""
    seeds: int = 0
    best_failed: int = 0
    median_loss: float | None = None
    loss: Interval | None = None
    perplexity: Interval | None = None
    own_lr: PairedTest | None = None
    same_lr: PairedTest | None = None
    baseline_lr: float | None = None
    largest_stable_lr: float | None = None
    stable_censored: bool = False
    headroom: float | None = None
    headroom_bound: str = ""
    sensitivity: float | None = None
    parameters: int | None = None
    flops_per_token: float | None = None
    tokens_per_second: float | None = None
    speeds: tuple[float, float] | None = None
    speed_ratio: Ratio | None = None
    peak_memory: float | None = None
    memory_ratio: Ratio | None = None
    spikes: Mapping[str, Spikes] = field(default_factory=dict)
    diverged: int = 0
    first_diverged: int | None = None
    grad_norm: Extreme | None = None
    update_norm: Extreme | None = None
    tev: Mapping[str, float] = field(default_factory=dict)
    hidden_growth: float | None = None
    scores: Mapping[str, Interval] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Depth [layers] and width [dimensions]."""
        return self.depth, self.width


@dataclass(frozen=True, kw_only=True)
class LrRow:
    """One arm of one depth and width at one learning rate.

    Attributes:
        arm: its techniques, or "baseline".
        depth: layers.
        width: of the residual stream [dimensions].
        lr: the learning rate.
        median: of the final validation loss over seeds; infinite where half of them failed, None where no run has
            ended, as the two that follow [nats/token].
        low: the smallest one [nats/token].
        high: the largest one [nats/token].
        seeds: that have ended.
        failed: of them.
        test: difference of the final validation loss to the baseline at this rate; None for the baseline itself, or
            without a pair [nats/token].
    """

    arm: str
    depth: int
    width: int
    lr: float
    median: float | None
    low: float | None
    high: float | None
    seeds: int
    failed: int
    test: PairedTest | None

    @property
    def shape(self) -> tuple[int, int]:
        """Depth [layers] and width [dimensions]."""
        return self.depth, self.width


def baseline_of(comparison: Comparison) -> str:
    """The arm that the others are compared with: the one without techniques, else the first."""
    arms = comparison.arms
    return BASELINE if BASELINE in arms or not arms else arms[0]


def arm_rows(comparison: Comparison) -> list[ArmRow]:
    """One row for each depth, width and arm: shapes ascending, arms in their order."""
    baseline = baseline_of(comparison)
    studies = {(each.depth, each.width, each.arm): each for each in study_arms(comparison.outcomes, baseline)}
    groups = by_arm(comparison.outcomes)
    keys = [(*shape, arm) for shape in comparison.shapes for arm in comparison.arms if (*shape, arm) in groups]
    return [
        _arm_row(
            groups[key],
            studies.get(key),
            baseline,
            groups.get((*key[:2], baseline), []),
            studies.get((*key[:2], baseline)),
        )
        for key in keys
    ]


def lr_rows(comparison: Comparison) -> list[LrRow]:
    """One row for each depth, width, arm and learning rate."""
    baseline = baseline_of(comparison)
    groups = by_arm(comparison.outcomes)
    rows = []
    for shape in comparison.shapes:
        for arm in comparison.arms:
            runs = groups.get((*shape, arm), [])
            rows += [
                _lr_row(_at(runs, lr), [] if arm == baseline else _at(groups.get((*shape, baseline), []), lr))
                for lr in sorted({run.lr for run in runs})
            ]
    return rows


def median(values: Iterable[float | None]) -> float | None:
    """The median of what is known and no NaN; None if there is nothing."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return float(np.median(known)) if known else None


def _arm_row(
    runs: Sequence[Outcome],
    study: ArmStudy | None,
    baseline: str,
    others: Sequence[Outcome],
    theirs: ArmStudy | None,
) -> ArmRow:
    """A row from an arm's runs, and from those of the baseline of the same shape."""
    best = study.best_lr if study else None
    at_best = [run for run in _at(runs, best) if run.ended]
    losses = [run.final_loss for run in at_best]
    loss = mean_interval(losses) if losses else None
    test = runs[0].arm != baseline and theirs is not None and theirs.best_lr is not None
    their_lr = theirs.best_lr if theirs else None
    speed, memory = _cost(runs, "tokens_per_second"), _cost(runs, "peak_memory")
    speeds = [run.tokens_per_second for run in runs if run.tokens_per_second is not None]
    diverged = [run.diverged_at for run in runs if run.diverged_at is not None]
    return ArmRow(
        arm=runs[0].arm,
        depth=runs[0].depth,
        width=runs[0].width,
        baseline=baseline,
        runs=len(runs),
        failed=sum(run.failed for run in runs),
        unfinished=sum(not run.ended for run in runs),
        seeds=len(at_best),
        best_failed=sum(run.failed for run in at_best),
        median_loss=median(losses),
        loss=loss,
        perplexity=loss and _exponential(loss),
        own_lr=_test(_at(runs, best), _at(others, their_lr)) if test else None,
        same_lr=_test(_at(runs, their_lr), _at(others, their_lr)) if test else None,
        baseline_lr=their_lr,
        parameters=next((run.parameters for run in runs if run.parameters is not None), None),
        flops_per_token=median(run.flops_per_token for run in runs),
        tokens_per_second=speed,
        speeds=(min(speeds), max(speeds)) if speeds else None,
        speed_ratio=cost_ratio(runs, others, "tokens_per_second"),
        peak_memory=memory,
        memory_ratio=cost_ratio(runs, others, "peak_memory"),
        spikes={key: each for key in ("loss", "grad_norm") if (each := _spikes(runs, at_best, key)) is not None},
        diverged=len(diverged),
        first_diverged=min(diverged, default=None),
        grad_norm=_extreme(runs, at_best, "max_grad_norm"),
        update_norm=_extreme(runs, at_best, "max_update_norm"),
        tev={key: value for key in TEV if (value := median(_last(run, key) for run in at_best)) is not None},
        hidden_growth=median(_last(run, "hidden_variance/growth") for run in at_best),
        scores=_scores(at_best),
        **_of_study(study),
    )


def _of_study(study: ArmStudy | None) -> dict:
    names = ("best_lr", "edge", "largest_stable_lr", "stable_censored", "headroom", "headroom_bound", "sensitivity")
    return {} if study is None else {name: getattr(study, name) for name in names}


def _lr_row(runs: Sequence[Outcome], others: Sequence[Outcome]) -> LrRow:
    losses = [_infinite(run.final_loss) for run in runs if run.ended]
    return LrRow(
        arm=runs[0].arm,
        depth=runs[0].depth,
        width=runs[0].width,
        lr=runs[0].lr,
        median=median(losses),
        low=min(losses, default=None),
        high=max(losses, default=None),
        seeds=len(losses),
        failed=sum(map(math.isinf, losses)),
        test=_test(runs, others),
    )


def _at(runs: Sequence[Outcome], lr: float | None) -> list[Outcome]:
    return [run for run in runs if run.lr == lr]


def _infinite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _test(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> PairedTest | None:
    """Of the final losses of the runs that have ended; None without a seed that both have."""
    found = paired_test(*({run.seed: run.final_loss for run in runs if run.ended} for runs in (ours, theirs)))
    return found if found.n else None


def _exponential(interval: Interval) -> Interval:
    with np.errstate(over="ignore"):
        low, middle, high = (float(np.exp(each)) for each in (interval.low, interval.middle, interval.high))
    return Interval(middle=middle, low=low, high=high, n=interval.n)


def _cost(runs: Sequence[Outcome], name: str) -> float | None:
    return median(getattr(run, name) for run in runs)


def _spikes(runs: Sequence[Outcome], at_best: Sequence[Outcome], key: str) -> Spikes | None:
    every = [run.spikes[key] for run in runs if key in run.spikes]
    best = [run.spikes[key] for run in at_best if key in run.spikes]
    if not every:
        return None
    return Spikes(
        score=float(np.mean([each.score for each in best])) if best else None,
        count=sum(each.count for each in best),
        grid_score=float(np.mean([each.score for each in every])),
        grid_count=sum(each.count for each in every),
        windows=(min(each.window for each in every), max(each.window for each in every)),
        width=every[0].width,
    )


def _extreme(runs: Sequence[Outcome], at_best: Sequence[Outcome], name: str) -> Extreme | None:
    def of(some: Sequence[Outcome]) -> list[float]:
        values: list[float | None] = [getattr(run, name) for run in some]
        return [_infinite(value) for value in values if value is not None]

    return Extreme(median=median(of(at_best)), largest=max(of(runs))) if of(runs) else None


def _last(run: Outcome, key: str) -> float | None:
    curve = run.curves.get(key)
    return curve.values[-1] if curve is not None and curve.values else None


def _scores(runs: Sequence[Outcome]) -> dict[str, Interval]:
    names = dict.fromkeys(name for run in runs for name in run.scores)
    return {name: mean_interval([run.scores[name] for run in runs if name in run.scores]) for name in names}
