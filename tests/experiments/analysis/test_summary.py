"""Rows, warnings and remarks of grids whose answers are known by hand."""

import dataclasses
import itertools
import json
import math
import re

import pytest

from spikeless.experiments.analysis.comparison import read_comparison
from spikeless.experiments.analysis.costs import Ratio
from spikeless.experiments.analysis.definitions import definitions
from spikeless.experiments.analysis.derived import derived_json
from spikeless.experiments.analysis.learning_rates import DEFINITIONS
from spikeless.experiments.analysis.remarks import not_helping, warnings
from spikeless.experiments.analysis.summary import arm_rows, baseline_of, lr_rows
from spikeless.experiments.presentation import wording

INF = math.inf


def change(comparison, arm, **fields):
    """The comparison with other values of an arm's runs."""
    outcomes = [dataclasses.replace(run, **fields) if run.arm == arm else run for run in comparison.outcomes]
    return dataclasses.replace(comparison, outcomes=tuple(outcomes))


def row_of(comparison, arm, depth=2):
    [row] = [row for row in arm_rows(comparison) if (row.arm, row.depth) == (arm, depth)]
    return row


# --- rows ---


def test_an_arm_by_hand(comparisons):
    whole = comparisons["whole"]()
    base, row = arm_rows(whole)
    assert (base.arm, row.arm, row.baseline, row.shape) == ("baseline", "mlra", "baseline", (2, 64))
    assert (base.runs, base.failed, base.unfinished, base.diverged, base.first_diverged) == (9, 3, 0, 3, 33)
    assert (row.best_lr, row.edge, row.seeds, row.best_failed) == (0.1, "", 3, 0)
    assert row.median_loss == 3.5 and row.loss.middle == pytest.approx(3.5)
    half = 4.302653 * 0.1 / math.sqrt(3)  # t of two degrees of freedom
    assert (row.loss.low, row.loss.high) == (pytest.approx(3.5 - half), pytest.approx(3.5 + half))
    assert row.perplexity.middle == pytest.approx(math.exp(3.5)) and row.perplexity.n == 3
    assert row.perplexity.high == pytest.approx(math.exp(3.5 + half))
    assert (row.largest_stable_lr, row.stable_censored) == (1.0, True)
    assert (base.largest_stable_lr, base.stable_censored) == (0.1, False)
    assert (row.headroom, row.headroom_bound) == (10, "at least")
    assert row.sensitivity == pytest.approx((4.3 + 3.5 + 3.5) / 3 - 3.5)
    assert base.own_lr is None and base.same_lr is None


def test_readings_of_an_arm_by_hand(comparisons):
    row = row_of(comparisons["whole"](), "mlra")
    assert (row.spikes["loss"].score, row.spikes["loss"].count) == (0.25, 2 + 3 + 4)
    assert (row.spikes["loss"].grid_score, row.spikes["loss"].grid_count) == (0.25, 27)
    assert (row.spikes["loss"].windows, row.spikes["loss"].width) == ((10, 10), 6)
    assert (row.grad_norm.median, row.grad_norm.largest) == (2, 12)
    assert (row.update_norm.median, row.update_norm.largest) == (0.1, 1)
    assert row.tev["tev/mean"] == pytest.approx(0.1 + 0.1 * 40) and row.tev["tev/effective_mean"] == 40.2
    assert row.hidden_growth == pytest.approx(21)
    assert (row.parameters, row.flops_per_token, row.tokens_per_second, row.peak_memory) == (1000, 6000, 101, 1e6)
    assert row.speeds == (100, 102)
    assert row_of(comparisons["whole"](), "baseline").grad_norm.largest == INF


def test_ratios_are_to_the_baseline(comparisons):
    slow = row_of(change(comparisons["whole"](), "mlra", tokens_per_second=50.5, peak_memory=3_000_000), "mlra")
    speeds = (50.5 / 102, 50.5 / 101, 50.5 / 100)  # 1.0 has failed runs of the baseline, which are no pairs
    assert slow.speed_ratio == Ratio(median=speeds[1], low=speeds[0], high=speeds[2], n=6)
    assert slow.memory_ratio == Ratio(median=3, low=3, high=3, n=6)
    base = row_of(comparisons["whole"](), "baseline")
    assert (base.speed_ratio, base.memory_ratio) == (None, None)


def test_equal_arms_cost_the_same_whatever_else_the_machine_does(make_comparison):
    """A machine that is now fast, now slow: runs side by side are equal, and no other pair says anything."""
    grid = make_comparison({arm: dict.fromkeys((0.1, 0.2, 0.3), (4.0, 4.1)) for arm in ("baseline", "mlra")})
    speed = {(lr, seed): 1000.0 / (1 + place) for place, (lr, seed) in enumerate(itertools.product(grid.lrs, (0, 1)))}
    outcomes = [
        dataclasses.replace(run, tokens_per_second=speed[run.lr, run.seed] * (1.01 if run.arm == "mlra" else 1.0))
        for run in grid.outcomes
    ]
    row = row_of(dataclasses.replace(grid, outcomes=tuple(outcomes)), "mlra")
    assert row.speed_ratio.n == 6 and row.speed_ratio.known
    assert (row.speed_ratio.low, row.speed_ratio.median, row.speed_ratio.high) == pytest.approx((1.01,) * 3)
    assert not [each for each in not_helping(dataclasses.replace(grid, outcomes=tuple(outcomes))) if "%" in each]


@pytest.mark.parametrize(("seeds", "told"), [(1, False), (2, False), (3, True)])
def test_no_cost_is_claimed_from_fewer_than_three_runs(seeds, told, make_comparison):
    grid = make_comparison({arm: {0.1: (4.0, 4.1, 4.2)[:seeds]} for arm in ("baseline", "mlra")})
    slow = change(grid, "mlra", tokens_per_second=10.0, peak_memory=9_000_000)
    assert row_of(slow, "mlra").speed_ratio.known is told
    assert bool([each for each in not_helping(slow) if "%" in each]) is told
    expected = ("0.10×", "0.10 to 0.10, 3 pairs") if told else (f"{seeds} run{'s' * (seeds > 1)}", "")
    assert wording.ratio(row_of(slow, "mlra").speed_ratio) == expected


def test_a_cost_is_claimed_only_if_every_pair_shows_it(make_comparison):
    grid = make_comparison({arm: {0.1: (4.0, 4.1, 4.2)} for arm in ("baseline", "mlra")})
    noisy = [
        dataclasses.replace(run, tokens_per_second=(50.0, 60.0, 103.0)[run.seed]) if run.arm == "mlra" else run
        for run in grid.outcomes
    ]
    assert not [each for each in not_helping(dataclasses.replace(grid, outcomes=tuple(noisy))) if "%" in each]


def test_differences_at_the_own_and_at_the_baselines_best_rate(make_comparison):
    baseline = {0.1: (3.5, 3.6, 3.7), 1.0: (4.0, 4.0, 4.0)}
    row = row_of(make_comparison({"baseline": baseline, "mlra": {0.1: (3.8, 3.9, 4.0), 1.0: (3.4, 3.3, 3.4)}}), "mlra")
    assert (row.baseline_lr, row.best_lr) == (0.1, 1.0)
    assert row.own_lr.differences == pytest.approx((-0.1, -0.3, -0.3))
    assert row.same_lr.differences == pytest.approx((0.3, 0.3, 0.3))
    assert row.own_lr.p_value == row.same_lr.p_value == 0.25


def test_differences_are_of_seeds_that_both_have(make_comparison):
    row = row_of(make_comparison({"baseline": {0.1: (3.5, 3.6, None)}, "mlra": {0.1: (None, 3.4, 3.0)}}), "mlra")
    assert row.own_lr.differences == pytest.approx((-0.2,))
    assert (row.seeds, row.unfinished) == (2, 1)
    alone = row_of(make_comparison({"baseline": {0.1: (3.5, None)}, "mlra": {0.1: (None, 3.4)}}), "mlra")
    assert alone.own_lr is None


def test_scores_are_means_over_seeds_at_the_best_rate(comparisons):
    whole = comparisons["whole"]()
    outcomes = [
        dataclasses.replace(
            run, scores={"bits_per_byte": 1.0 + run.seed} | ({"lambada_accuracy": 9} if run.lr == 1 else {})
        )
        for run in whole.outcomes
    ]
    row = row_of(dataclasses.replace(whole, outcomes=tuple(outcomes)), "mlra")
    assert list(row.scores) == ["bits_per_byte"]
    assert (row.scores["bits_per_byte"].middle, row.scores["bits_per_byte"].n) == (2, 3)


def test_a_learning_rate_by_hand(comparisons):
    rows = lr_rows(comparisons["whole"]())
    assert [(row.arm, row.lr) for row in rows] == [(arm, lr) for arm in ("baseline", "mlra") for lr in (0.01, 0.1, 1.0)]
    first, _, failed, low, middle, high = rows
    assert (first.median, first.low, first.high, first.seeds, first.failed, first.test) == (4.1, 4.0, 4.2, 3, 0, None)
    assert (failed.median, failed.low, failed.failed) == (INF, INF, 3)
    assert low.test.differences == pytest.approx((0.1, 0.1, 0.2))
    assert middle.test.differences == pytest.approx((-0.1,) * 3)
    assert high.test.differences == (-INF,) * 3


def test_shapes_are_compared_with_their_own_baseline(comparisons):
    depths = comparisons["depths"]()
    assert [row.shape for row in arm_rows(depths)] == [(2, 64), (2, 64), (4, 64), (4, 64)]
    assert row_of(depths, "mlra", 2).own_lr.median == pytest.approx(-0.1)
    assert row_of(depths, "mlra", 4).own_lr.median == 0
    alone = row_of(comparisons["an arm at one depth"](), "mlra", 4)
    assert (alone.own_lr, alone.headroom, alone.speed_ratio) == (None, None, None)


def test_without_a_baseline_the_first_arm_is_it(comparisons):
    grid = comparisons["no baseline"]()
    assert baseline_of(grid) == "mlra"
    assert row_of(grid, "scaled_embed").own_lr.median == pytest.approx(-0.1)


def test_an_arm_that_always_fails_has_no_loss(comparisons):
    row = row_of(comparisons["technique failed"](), "mlra")
    assert (row.best_lr, row.loss, row.own_lr, row.seeds, row.failed) == (None, None, None, 0, 4)
    assert row.same_lr.median == INF


# --- remarks ---


def test_warnings_of_a_whole_grid(comparisons):
    assert warnings(comparisons["whole"]()) == [
        "3 runs of 18 failed: their loss counts as infinite",
        "3 seeds allow no p-value below 0.25: no difference can be shown",
        "p-values are not corrected for the number of comparisons, which is 5",
    ]


def test_many_seeds_can_show_a_difference(make_comparison):
    losses = {0.1: (4.0,) * 6, 1.0: (3.0,) * 6, 10.0: (4.0,) * 6}
    found = warnings(make_comparison({"baseline": losses, "mlra": losses}))
    assert "the smallest p-value that 6 seeds allow is 0.031" in found
    assert not [each for each in found if "no difference can be shown" in each]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "there is no run"),
        ("one seed", "one seed: an illustration, no evidence"),
        ("one rate", "the only learning rate is 0.1: give smaller and larger ones, each arm may want another"),
        ("planned", "4 runs of 4 not ended (4 planned): the numbers are of those that have"),
        ("partial", "2 runs of 5 not ended (2 running): the numbers are of those that have"),
        ("no baseline", 'there is no arm "baseline": differences and ratios are to mlra'),
        ("all failed", "baseline; mlra: at every learning rate half of the runs or more failed; give smaller ones"),
        ("one seed", "baseline; mlra: the best learning rate 0.1 is the grid's smallest; give smaller ones"),
    ],
)
def test_what_is_warned_of(name, said, comparisons):
    assert said in warnings(comparisons[name]())
    assert said not in warnings(comparisons["whole"]())


def test_edges_say_which_shape(comparisons, make_comparison):
    rates = {0.1: (3.0, 3.1), 1.0: (3.5, 3.6)}
    found = warnings(make_comparison({("baseline", 2): rates, ("baseline", 4): rates}))
    places = "baseline, 2 layers × 64; baseline, 4 layers × 64"
    assert f"{places}: the best learning rate 0.1 is the grid's smallest; give smaller ones" in found
    many = warnings(make_comparison({("baseline", depth): rates for depth in range(2, 9)}))
    three = "; ".join(f"baseline, {depth} layers × 64" for depth in (2, 3, 4))
    assert f"{three} and 4 more: the best learning rate 0.1 is the grid's smallest; give smaller ones" in many


def test_runs_that_died_and_a_busy_machine(comparisons):
    crashed = change(comparisons["whole"](), "mlra", state="crashed", final_val_loss=None)
    assert (
        "12 runs of 18 failed, 9 of them because the process died (run again to try again): "
        in warnings(crashed)[0] + ": "
    )
    assert not [each for each in warnings(crashed) if "busy" in each]
    outcomes = [dataclasses.replace(run, tokens_per_second=200.0 if run.seed else 100.0) for run in crashed.outcomes]
    busy = dataclasses.replace(crashed, outcomes=tuple(outcomes))
    [said] = [each for each in warnings(busy) if "busy" in each]
    assert "by a factor of up to 2 between runs" in said


def test_where_it_did_not_help_by_hand(make_comparison):
    grid = make_comparison(
        {
            "baseline": {0.01: (4.0,) * 6, 0.1: (3.5,) * 6, 1.0: (3.6,) * 6, 10.0: (9.0,) * 6},
            "mlra": {
                0.01: (4.1,) * 6,
                0.1: (3.4, 3.4, 3.4, 3.4, 3.6, 3.8),
                1.0: (3.3,) * 6,
                10.0: (INF, INF, INF, 3.0, 3.0, 3.0),
            },
        }
    )
    assert not_helping(grid) == [
        "mlra: loss not lower than the baseline's at learning rate 0.01 (+0.100 nats), 10 (3 of 6 runs failed)",
        "mlra: loss lower, but chance could explain it (p above 0.05), at learning rate 0.1 (p 1, 6 seeds)",
    ]


def test_worse_at_the_own_best_rate_too(make_comparison):
    worse = make_comparison(
        {"baseline": {0.1: (3.0, 3.1), 1.0: (4.0, 4.1)}, "mlra": {0.1: (4.0, 4.1), 1.0: (3.5, 3.6)}}
    )
    assert not_helping(worse)[0] == "mlra: each arm at its own best learning rate: loss not lower (+0.500 nats)"


def test_no_difference_is_no_help(comparisons):
    where = "mlra, 4 layers × 64: "
    found = [each.removeprefix(where) for each in not_helping(comparisons["depths"]()) if each.startswith(where)]
    rates = "0.01 (+0.000 nats), 0.1 (+0.000 nats), 1 (3 of 3 runs failed)"
    assert found == [f"loss not lower than the baseline's at learning rate {rates}"]


def test_costs_are_told_beyond_five_per_cent(comparisons):
    def costs(speed, memory):
        grid = change(comparisons["whole"](), "mlra", tokens_per_second=speed, peak_memory=memory)
        return [each for each in not_helping(grid) if "%" in each]

    assert costs(101 * 0.96, 1_040_000) == []
    assert costs(101 * 0.93, 1_060_000) == [
        "mlra: 7 % fewer tokens/s than the baseline (0.92× to 0.94×, 6 pairs of runs)",
        "mlra: 6 % more peak memory than the baseline (1.06× to 1.06×, 6 pairs of runs)",
    ]


def test_the_baseline_and_what_helps_everywhere_are_not_mentioned(make_comparison):
    better = {lr: (3.0 + lr,) * 6 for lr in (0.1, 0.2)}
    grid = make_comparison({"baseline": {lr: (4.0 + lr,) * 6 for lr in (0.1, 0.2)}, "mlra": better})
    assert not_helping(grid) == []


# --- for every kind of grid ---


def test_nothing_stops_the_numbers(any_comparison, tmp_path):
    derived = derived_json(any_comparison)["derived"]
    assert len(derived["arms"]) == len({(run.arm, run.depth, run.width) for run in any_comparison.outcomes})
    assert not [each for each in derived["warnings"] + derived["not_helping"] if re.search(r"\b(nan|inf|None)\b", each)]
    any_comparison.write(tmp_path / "comparison.json", derived_json(any_comparison))
    assert len(read_comparison(tmp_path / "comparison.json").outcomes) == len(any_comparison.outcomes)
    data = json.loads((tmp_path / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert set(data["derived"]) == {
        "baseline", "warnings", "arms", "learning_rates", "not_helping", "stand_in", "definitions",
    }  # fmt: skip


def test_definitions_carry_the_parameters(any_comparison):
    found = definitions(any_comparison)
    assert set(DEFINITIONS) - {"edge"} < set(found)
    for name in ("spike", "paired test", "interval", "median and band", "TEV", "hidden variance", "FLOPs per token"):
        assert found[name]
    assert ("scores" in found) == any(run.scores for run in any_comparison.outcomes)


def test_definitions_of_this_grid(comparisons):
    found = definitions(
        dataclasses.replace(comparisons["whole"](), about=dataclasses.replace(comparisons["whole"]().about, jobs=4))
    )
    assert "by 6 of its standard deviations, one-sided" in found["spike"] and "window of 10 optimizer" in found["spike"]
    assert "4 runs at a time shared the machine" in found["tokens/s"]
