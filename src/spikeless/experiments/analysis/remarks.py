"""What a reader of a comparison must know besides its numbers, and where techniques did not help."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby

from spikeless.experiments.analysis.comparison import Comparison
from spikeless.experiments.analysis.costs import Ratio
from spikeless.experiments.analysis.learning_rates import ArmStudy, by_arm, edge_warning, study_arms
from spikeless.experiments.analysis.reached import unreached
from spikeless.experiments.analysis.statistics import PairedTest, least_p
from spikeless.experiments.analysis.summary import ArmRow, LrRow, arm_rows, baseline_of, lr_rows
from spikeless.experiments.grid import BASELINE
from spikeless.experiments.presentation.wording import p_value
from spikeless.words import counted, number

__all__ = ["COSTLY", "LEVEL", "not_helping", "place", "warnings"]

LEVEL = 0.05
"""A p-value above this shows no difference."""
COSTLY = 0.05
"""A share of tokens/s or of memory that is worth a word."""
NAMED = 3
"""Arms that one warning names."""
BUSY = 1.25
"""Runs of one arm whose tokens/s differ by such a factor were disturbed."""


def warnings(comparison: Comparison) -> list[str]:
    """What limits the numbers of a comparison, a sentence each."""
    outcomes, baseline = comparison.outcomes, baseline_of(comparison)
    if not outcomes:
        return ["there is no run"]
    rate = unreached(comparison.about)
    found = [*([rate] if rate else []), *comparison.about.remarks, *_unended(comparison)]
    if baseline != BASELINE:
        found.append(f'there is no arm "{BASELINE}": differences and ratios are to {baseline}')
    several, studies = len(comparison.shapes) > 1, study_arms(outcomes, baseline)
    lrs = {lr for study in studies for lr in study.lrs}
    if len(lrs) == 1 and len(studies) > 1:
        found.append(
            f"the only learning rate is {lrs.pop():g}: give smaller and larger ones, each arm may want another"
        )
        studies = []
    edges: dict[str, list[str]] = {}
    for study in studies:
        if warning := edge_warning(study):
            edges.setdefault(warning.removeprefix(study.arm), []).append(place(study, several))
    for warning, places in edges.items():
        more = f" and {len(places) - NAMED} more" if len(places) > NAMED + 1 else ""
        found.append("; ".join(places[:NAMED] if more else places) + more + warning)
    return [*found, *_evidence(comparison), *_busy(comparison)]


def not_helping(comparison: Comparison) -> list[str]:
    """For each arm but the baseline: where its loss is no lower, or not clearly so, and what it costs."""
    several = len(comparison.shapes) > 1
    baseline = baseline_of(comparison)
    by_rate = {key: list(rows) for key, rows in groupby(lr_rows(comparison), key=lambda row: (*row.shape, row.arm))}
    found = []
    for row in arm_rows(comparison):
        if row.arm != baseline:
            said = [*_losses(row, by_rate[*row.shape, row.arm]), *_costs(row)]
            found += [f"{place(row, several)}: {each}" for each in said]
    return found


def place(row: ArmRow | ArmStudy, several: bool) -> str:
    """An arm, with its depth and width where there are several of them."""
    return f"{row.arm}, {counted(row.depth, 'layer')} × {row.width}" if several else row.arm


def _unended(comparison: Comparison) -> list[str]:
    """Runs without a loss, or with an infinite one."""
    outcomes = comparison.outcomes
    found = []
    states = Counter(run.state for run in outcomes if not run.ended)
    if states:
        parts = ", ".join(f"{count} {state}" for state, count in states.items())
        found.append(
            f"{counted(states.total(), 'run')} of {len(outcomes)} not ended ({parts}): "
            "the numbers are of those that have"
        )
    if failed := [run for run in outcomes if run.failed]:
        crashed = sum(run.state == "crashed" for run in failed)
        also = f", {crashed} of them because the process died (run again to try again)" if crashed else ""
        found.append(f"{counted(len(failed), 'run')} of {len(outcomes)} failed{also}: their loss counts as infinite")
    return found


def _evidence(comparison: Comparison) -> list[str]:
    """How much so many seeds can show."""
    baseline = baseline_of(comparison)
    cells = [len({run.seed for run in runs}) for runs in _cells(comparison)]
    if max(cells) == 1:
        return ["one seed: an illustration, no evidence"]
    if len(comparison.arms) == 1:
        return []
    found = []
    tests = [row.test for row in lr_rows(comparison) if row.test is not None]
    few = min((test.n for test in tests), default=0)
    many = max((test.n for test in tests), default=0)
    if many == 1:
        found.append("only one seed has ended in two arms: their differences are an illustration, no evidence")
    elif many and least_p(many) > LEVEL:
        found.append(
            f"{counted(many, 'seed')} allow no p-value below {p_value(least_p(many))}: no difference can be shown"
        )
    elif many:
        fewer = f" ({p_value(least_p(few))} with {few})" if few != many else ""
        found.append(f"the smallest p-value that {counted(many, 'seed')} allow is {p_value(least_p(many))}{fewer}")
    rows = [row for row in arm_rows(comparison) if row.arm != baseline]
    count = len(tests) + sum((row.own_lr is not None) + (row.same_lr is not None) for row in rows)
    if count > 1:
        found.append(f"p-values are not corrected for the number of comparisons, which is {count}")
    return found


def _busy(comparison: Comparison) -> list[str]:
    """Whether runs of one arm were differently fast."""
    spreads = []
    for runs in by_arm(comparison.outcomes).values():
        speeds = [run.tokens_per_second for run in runs if run.tokens_per_second]
        spreads.append(max(speeds) / min(speeds) if speeds else 1.0)
    if max(spreads) < BUSY:
        return []
    return [
        f"tokens/s of one and the same arm differ by a factor of up to {number(max(spreads))} between runs: the "
        "machine was busy with something else too, so small differences of speed mean nothing"
    ]


def _cells(comparison: Comparison) -> list[list]:
    cells: dict[tuple, list] = {}
    for key, runs in by_arm(comparison.outcomes).items():
        for run in runs:
            cells.setdefault((*key, run.lr), []).append(run)
    return list(cells.values())


def _losses(row: ArmRow, rates: Sequence[LrRow]) -> list[str]:
    """Learning rates at which the median loss is not lower than the baseline's, or not clearly so."""
    tested = [(each, each.test) for each in rates if each.test is not None]
    if not tested:
        return ["nothing to compare with: no seed has ended in both arms"]
    worse = [each for each, test in tested if not test.median < 0]
    unclear = [each for each, test in tested if test.median < 0 and test.p_value > LEVEL]
    found = []
    if worse:
        found.append(f"loss not lower than the {row.baseline}'s at {_list(worse, _amount)}")
    if unclear:
        found.append(f"loss lower, but chance could explain it (p above {LEVEL:g}), at {_list(unclear, _chance)}")
    own = row.own_lr
    if own is not None and row.best_lr != row.baseline_lr and not (own.median < 0 and own.p_value <= LEVEL):
        how = f"loss not lower ({own.median:+.3f} nats)"
        how = f"loss lower, but chance could explain it ({_p(own)})" if own.median < 0 else how
        found.insert(0, f"each arm at its own best learning rate: {how}")
    return found


def _list(rows: Sequence[LrRow], say: Callable[[LrRow], str]) -> str:
    return "learning rate " + ", ".join(f"{number(row.lr)} ({say(row)})" for row in rows)


def _amount(row: LrRow) -> str:
    """By how much its loss is higher; where runs failed, that."""
    assert row.test is not None
    difference = row.test.median
    if row.failed * 2 >= row.seeds:
        return f"{row.failed} of {counted(row.seeds, 'run')} failed"
    return (
        f"{difference:+.3f} nats"
        if abs(difference) < float("inf")
        else f"{row.failed} of {counted(row.seeds, 'run')} failed"
    )


def _chance(row: LrRow) -> str:
    assert row.test is not None
    return _p(row.test)


def _p(test: PairedTest) -> str:
    """The p-value; a single pair has none that says anything."""
    return counted(test.n, "seed") if test.n == 1 else f"p {p_value(test.p_value)}, {counted(test.n, 'seed')}"


def _costs(row: ArmRow) -> list[str]:
    """Tokens/s and memory, where they are worse by more than `COSTLY`, and worse in every pair of runs."""
    found = []
    speed, memory = row.speed_ratio, row.memory_ratio
    if speed and speed.known and speed.median < 1 - COSTLY and speed.high < 1:
        found.append(f"{100 * (1 - speed.median):.0f} % fewer tokens/s than the {row.baseline} ({_spread(speed)})")
    if memory and memory.known and memory.median > 1 + COSTLY and memory.low > 1:
        found.append(f"{100 * (memory.median - 1):.0f} % more peak memory than the {row.baseline} ({_spread(memory)})")
    return found


def _spread(ratio: Ratio) -> str:
    return f"{ratio.low:.2f}× to {ratio.high:.2f}×, {ratio.n} pairs of runs"
