"""A grid of learning rates, arm by arm: the best rate, the largest stable one, and how much the rate matters."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spikeless.experiments.analysis.outcome import Outcome

__all__ = ["DEFINITIONS", "TOLERANCE", "ArmStudy", "by_arm", "edge_warning", "study_arms"]

TOLERANCE = 0.2
"""How far above its arm's best median a loss may be for its learning rate to be stable [nats/token]."""

DEFINITIONS = {
    "largest stable learning rate": (
        "the largest rate of the grid whose median final validation loss over seeds is within "
        f"{TOLERANCE} nats of the arm's best, with all seeds finite; at the grid's top it is a lower bound, "
        "and an arm that is equally bad everywhere is stable everywhere"
    ),
    "headroom": (
        "an arm's largest stable learning rate divided by that of the baseline of the same depth and width; "
        "at least, or at most, so much where ours, or the baseline's, is the grid's top"
    ),
    "learning-rate sensitivity": (
        "the mean over the grid of min(median final validation loss, loss at initialisation), minus the least of "
        "these; a run that failed counts as the loss at initialisation"
    ),
    "edge": (
        "the best learning rate is the grid's smallest (low) or largest (high), so that a better one may lie outside; "
        "the grid has a single rate (only)"
    ),
}
"""One sentence each, for under the tables; all are our definitions, but for the sensitivity (Wortsman et al. 2023)."""


@dataclass(frozen=True, kw_only=True)
class ArmStudy:
    """One arm of one depth and width over its learning rates; of runs that have ended, a failed one being infinite.

    Attributes:
        arm: its techniques, or "baseline".
        depth: layers.
        width: of the residual stream [dimensions].
        lrs: the learning rates, ascending.
        losses: a learning rate's median final validation loss over seeds; infinite if the median is [nats/token].
        ranges: a learning rate's smallest and largest final validation loss [nats/token].
        seeds: a learning rate's seeds that have ended.
        failed: a learning rate's runs that failed.
        best_lr: of the smallest of `losses`, the smaller one of equals; None if all are infinite.
        best_loss: the smallest of `losses`; infinite if all are [nats/token].
        edge: where `best_lr` lies: "low" or "high" end of the grid, "" inside, "only" in a grid of one; "" for None.
        largest_stable_lr: see `DEFINITIONS`; None if there is none.
        stable_censored: it is the grid's top: the real one may be larger.
        headroom: see `DEFINITIONS`; None if there is no baseline or one of the two rates is None.
        headroom_bound: what `headroom` is: "" itself, "at least" or "at most" the real one's bound, or "unknown" if
            both rates are at their grid's top.
        sensitivity: see `DEFINITIONS`; None if the loss at initialisation is unknown, if no loss is finite, or in a
            grid of one, where it would be 0 whatever the arm [nats/token].
    """

    arm: str
    depth: int
    width: int
    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    ranges: tuple[tuple[float, float], ...]
    seeds: tuple[int, ...]
    failed: tuple[int, ...]
    best_lr: float | None
    best_loss: float
    edge: str
    largest_stable_lr: float | None
    stable_censored: bool
    headroom: float | None = None
    headroom_bound: str = ""
    sensitivity: float | None = None


def study_arms(outcomes: Sequence[Outcome], baseline: str = "baseline") -> list[ArmStudy]:
    """One study an arm, depth and width, in order of first appearance; without a run that has ended there is none.

    Args:
        outcomes: of the whole grid.
        baseline: the arm that headroom is relative to; the first one if there is none of this name.
    """
    if outcomes and all(outcome.arm != baseline for outcome in outcomes):
        baseline = outcomes[0].arm
    ended = [(key, [run for run in runs if run.ended]) for key, runs in by_arm(outcomes).items()]
    studies = {key: _study(runs) for key, runs in ended if runs}
    return [_with_headroom(study, studies.get((*key[:2], baseline))) for key, study in studies.items()]


def by_arm(outcomes: Sequence[Outcome]) -> dict[tuple[int, int, str], list[Outcome]]:
    """The outcomes of each depth, width and arm, in order of first appearance."""
    groups: dict[tuple[int, int, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.depth, outcome.width, outcome.arm), []).append(outcome)
    return groups


def edge_warning(study: ArmStudy) -> str | None:
    """What to change in a grid whose best learning rate is at its edge; None if nothing."""
    if study.best_lr is None:
        return f"{study.arm}: at every learning rate half of the runs or more failed; give smaller ones"
    if study.edge == "only":
        return f"{study.arm}: the only learning rate is {study.best_lr:g}; give smaller and larger ones"
    if study.edge:
        size, wanted = ("smallest", "smaller") if study.edge == "low" else ("largest", "larger")
        return f"{study.arm}: the best learning rate {study.best_lr:g} is the grid's {size}; give {wanted} ones"
    return None


def _study(runs: Sequence[Outcome]) -> ArmStudy:
    lrs = sorted({run.lr for run in runs})
    grid = [[run for run in runs if run.lr == lr] for lr in lrs]
    finals = [np.array([_loss(run) for run in group]) for group in grid]
    losses = [float(np.median(values)) for values in finals]
    failed = [int(np.isinf(values).sum()) for values in finals]
    best = int(np.argmin(losses))
    finite = bool(np.isfinite(losses[best]))
    stable = [
        lr
        for lr, loss, failures in zip(lrs, losses, failed, strict=True)
        if not failures and loss - losses[best] <= TOLERANCE
    ]
    return ArmStudy(
        arm=runs[0].arm,
        depth=runs[0].depth,
        width=runs[0].width,
        lrs=tuple(lrs),
        losses=tuple(losses),
        ranges=tuple((float(values.min()), float(values.max())) for values in finals),
        seeds=tuple(len({run.seed for run in group}) for group in grid),
        failed=tuple(failed),
        best_lr=lrs[best] if finite else None,
        best_loss=losses[best],
        edge=_edge(best, len(lrs)) if finite else "",
        largest_stable_lr=stable[-1] if stable else None,
        stable_censored=lrs[-1:] == stable[-1:],
        sensitivity=_sensitivity(losses, [run.initial_val_loss for run in runs]),
    )


def _loss(run: Outcome) -> float:
    return run.final_loss if np.isfinite(run.final_loss) else np.inf


def _edge(index: int, size: int) -> str:
    if size == 1:
        return "only"
    return "low" if index == 0 else "high" if index == size - 1 else ""


def _sensitivity(losses: Sequence[float], initial: Sequence[float | None]) -> float | None:
    known = [value for value in initial if value is not None and np.isfinite(value)]
    if not known or len(losses) == 1 or not np.isfinite(losses).any():
        return None
    clipped = np.minimum(losses, np.median(known))
    return float(clipped.mean() - clipped.min())


def _with_headroom(study: ArmStudy, baseline: ArmStudy | None) -> ArmStudy:
    if baseline is None or study.largest_stable_lr is None or baseline.largest_stable_lr is None:
        return study
    bound = {(True, False): "at least", (False, True): "at most", (True, True): "unknown"}
    censored = (study.stable_censored, baseline.stable_censored)
    return replace(
        study,
        headroom=study.largest_stable_lr / baseline.largest_stable_lr,
        headroom_bound="" if study is baseline else bound.get(censored, ""),
    )
