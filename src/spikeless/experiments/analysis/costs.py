"""What an arm costs over the baseline, pair by pair of runs that were measured side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spikeless.experiments.analysis.outcome import Outcome

__all__ = ["LEAST_PAIRS", "Ratio", "cost_ratio"]

LEAST_PAIRS = 3
"""Of fewer pairs of runs no ratio is claimed."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A cost of an arm over the baseline's, pair by pair: finished runs of one learning rate and seed.

    Attributes:
        median: over the pairs.
        low: the smallest one.
        high: the largest one.
        n: pairs; fewer than `LEAST_PAIRS` say nothing.
    """

    median: float
    low: float
    high: float
    n: int

    @property
    def known(self) -> bool:
        """Whether there are pairs enough to say something."""
        return self.n >= LEAST_PAIRS


def cost_ratio(ours: Sequence[Outcome], theirs: Sequence[Outcome], name: str) -> Ratio | None:
    """Of a cost of an arm, to that of the baseline of its shape; None for the baseline itself, or without a pair.

    Args:
        ours: runs of the arm.
        theirs: runs of the baseline.
        name: "tokens_per_second" or "peak_memory".
    """

    def by_place(runs: Sequence[Outcome]) -> dict[tuple[float, int], float]:
        values = {(run.lr, run.seed): getattr(run, name) for run in runs if run.state == "finished"}
        return {place: value for place, value in values.items() if value}

    base = by_place(theirs)
    ratios = [value / base[place] for place, value in by_place(ours).items() if place in base]
    if not ratios or ours[0].arm == theirs[0].arm:
        return None
    return Ratio(median=float(np.median(ratios)), low=min(ratios), high=max(ratios), n=len(ratios))
