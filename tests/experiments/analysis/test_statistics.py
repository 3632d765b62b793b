"""Against brute force, hand-computed values and scipy."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from spikeless.experiments.analysis.statistics import least_p, mean_interval, paired_test, rank_correlation

INF, NAN = math.inf, math.nan
finite = st.floats(-10, 10).map(lambda value: round(value, 3))


def test_the_interval_of_a_mean_is_students():
    values = [3.1, 2.9, 3.4, 3.0]
    found = mean_interval(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.middle, found.low, found.high, found.n) == (
        pytest.approx(3.1),
        pytest.approx(low),
        pytest.approx(high),
        4,
    )
    # By hand: std 0.2160, standard error 0.1080, t = 3.182.
    assert found.high - found.middle == pytest.approx(3.1824 * 0.10801, rel=1e-4)
    assert mean_interval(values, level=0.5).high < found.high


def test_a_mean_without_an_interval():
    one, none, failed, unknown = (mean_interval(values) for values in ([3.0], [], [3.0, INF, 2.0], [3.0, NAN]))
    assert (one.middle, one.n) == (3.0, 1)
    assert math.isnan(one.low) and math.isnan(one.high)
    assert math.isnan(none.middle) and math.isnan(none.low) and none.n == 0
    for each in (failed, unknown):
        assert each.middle == INF and math.isnan(each.low) and math.isnan(each.high)
    equal = mean_interval([2.0, 2.0, 2.0])
    assert (equal.low, equal.middle, equal.high) == (2.0, 2.0, 2.0)


def pairs(differences):
    return dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0.0)


def by_brute_force(differences):
    observed, scale = abs(sum(differences)), 1e-9
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in product((-1, 1), repeat=len(differences))
    ]
    return sum(each >= observed - scale for each in sums) / len(sums)


@given(st.lists(finite, max_size=8))
@settings(max_examples=60, deadline=None)
def test_sign_flips_are_all_tried(differences):
    found = paired_test(*pairs(differences))
    assert found.p_value == by_brute_force(differences)
    assert found.method == "exact sign-flip permutation test"
    assert (found.p_value * 2 ** len(differences)).is_integer()
    assert least_p(len(differences)) <= found.least_p <= found.p_value <= 1


def test_sign_flips_agree_with_scipy():
    differences = np.random.default_rng(3).normal(0.4, 1, size=9)
    reference = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=False
    )
    assert 0.01 < reference.pvalue < 0.99
    assert paired_test(*pairs(differences)).p_value == pytest.approx(reference.pvalue, abs=1e-12)


@given(st.dictionaries(st.integers(0, 9), st.one_of(finite, st.just(INF))), st.dictionaries(st.integers(0, 9), finite))
@settings(max_examples=60, deadline=None)
def test_swapping_the_arms_changes_signs_alone(ours, baseline):
    one, other = paired_test(ours, baseline), paired_test(baseline, ours)
    assert one.p_value == other.p_value and one.method == other.method
    assert one.n == len(ours.keys() & baseline.keys())
    assert [-d for d in one.differences] == list(other.differences)
    assert np.array_equal([one.median, one.low, one.high], [-other.median, -other.high, -other.low], equal_nan=True)


def test_sums_that_differ_by_rounding_are_ties():
    assert paired_test(*pairs([0.1, 0.2, -0.3])).p_value == 1.0


def test_pairs_are_of_the_same_seed():
    found = paired_test({5: 3.0, 1: 2.0, 7: 9.0}, {1: 2.5, 5: 2.0, 2: 0.0})
    assert found.differences == (-0.5, 1.0)  # of seeds 1 and 5
    assert (found.median, found.n) == (0.25, 2)


def test_six_seeds_reach_a_thirtieth_and_have_an_interval():
    found = paired_test(*pairs([-0.1, -0.2, -0.3, -0.15, -0.05, -0.4]))
    assert found.p_value == found.least_p == least_p(6) == 2 / 64
    assert (found.low, found.high) == (-0.4, -0.05)  # P(all on one side of the median) = 2/64 < 5 %
    assert found.median == pytest.approx(-0.175)
    five = paired_test(*pairs([-0.1, -0.2, -0.3, -0.15, -0.05]))
    assert math.isnan(five.low) and math.isnan(five.high) and five.p_value == 2 / 32


def test_failed_runs_make_it_a_sign_test_without_ties():
    ours = {1: 3.0, 2: 3.0, 3: 3.0, 4: INF, 5: 3.5, 6: NAN}
    baseline = {1: INF, 2: 3.2, 3: NAN, 4: INF, 5: 3.4, 6: INF}
    found = paired_test(ours, baseline)
    assert found.differences == (-INF, pytest.approx(-0.2), -INF, 0.0, pytest.approx(0.1), 0.0)
    assert found.method == "exact sign test"
    assert found.p_value == pytest.approx(10 / 16)  # 1 of 4 untied signs: 2 · (1 + 4)/16
    assert (found.n, found.least_p) == (6, 2 / 16)
    assert found.low == -INF and found.high == pytest.approx(0.1) and found.median == pytest.approx(-0.1)


def test_a_test_of_nothing_finds_nothing():
    for found in (paired_test({}, {}), paired_test({1: 3.0}, {2: 3.0})):
        assert (found.p_value, found.n, found.differences, found.least_p) == (1.0, 0, (), 1.0)
        assert math.isnan(found.median)
    failed = paired_test({1: INF, 2: INF}, {1: INF, 2: INF})
    assert (failed.p_value, failed.differences) == (1.0, (0.0, 0.0))
    assert math.isnan(paired_test({1: INF, 2: 0.0}, {1: 0.0, 2: INF}).median)


def test_many_pairs_are_sampled():
    differences = np.random.default_rng(1).normal(0.0, 1, size=17)
    found = paired_test(*pairs(differences))
    assert found.method == "sign-flip permutation test, 99,999 random flips"
    assert found.p_value == pytest.approx(by_brute_force(differences), abs=0.006)  # four standard errors
    assert 0.02 < found.p_value < 0.98
    assert paired_test(*pairs([1.0] * 30)).p_value == paired_test(*pairs([1.0] * 30)).least_p == 1e-5
    assert paired_test(*pairs([*differences[:16]])).method == "exact sign-flip permutation test"


@pytest.mark.parametrize("kind", ["spearman", "kendall"])
@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlations_agree_with_scipy(kind, ties):
    generator = np.random.default_rng(0)
    x = generator.normal(size=15)
    y = x + generator.normal(size=15)
    if ties:
        x, y = x.round(), y.round()
    reference = {"spearman": stats.spearmanr, "kendall": stats.kendalltau}[kind](x, y).statistic
    found = rank_correlation(list(x), list(y), kind=kind, resamples=200)
    assert found.value == pytest.approx(reference, abs=1e-12)
    assert -1 <= found.low < found.value < found.high <= 1
    assert (found.n, found.kind) == (15, kind)


def test_the_bootstrap_is_that_of_the_pairs_and_deterministic():
    generator = np.random.default_rng(5)
    x = generator.normal(size=20)
    y = x + generator.normal(size=20)
    found = rank_correlation(list(x), list(y), resamples=300)
    picks = np.random.default_rng(0).integers(20, size=(300, 20))
    low, high = np.quantile([stats.spearmanr(x[pick], y[pick]).statistic for pick in picks], (0.025, 0.975))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert rank_correlation(list(x), list(y), resamples=300) == found
    assert rank_correlation(list(x), list(y), resamples=300, seed=1).low != found.low
    assert math.isnan(rank_correlation(list(x), list(y), resamples=0).low)


def test_resamples_without_a_correlation_are_left_out():
    found = rank_correlation([1, 2, 3], [1, 2, 3])  # a ninth of the resamples picks one pair three times
    assert (found.value, found.low, found.high) == (1, pytest.approx(1), pytest.approx(1))


def test_a_failed_run_ranks_last_and_nan_is_dropped():
    x, y = [1, 2, 3, 4, 5, NAN], [0.1, 0.3, 0.2, INF, NAN, 7]
    found = rank_correlation(x, y)
    assert found.value == pytest.approx(0.8)  # ranks 1 3 2 4: 1 - 6·2/(4·15)
    assert found.n == 4
    assert rank_correlation(x, y) == rank_correlation(x, [0.1, 0.3, 0.2, 99.0, NAN, 7])
    assert rank_correlation([1, 2, 3, 4], [1, INF, INF, 0]).value == pytest.approx(
        stats.spearmanr([1, 2, 3, 4], [1, 9, 9, 0]).statistic
    )


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [INF] * 3), ([], [])])
def test_no_correlation_of_too_few_or_of_a_constant(x, y):
    found = rank_correlation(x, y)
    assert math.isnan(found.value) and math.isnan(found.low) and math.isnan(found.high)
    assert found.n == len(x)


@given(st.lists(st.tuples(finite, finite), min_size=3, max_size=12))
@settings(max_examples=40, deadline=None)
def test_rank_correlations_know_order_alone(points):
    x, y = [p[0] for p in points], [p[1] for p in points]
    for kind in ("spearman", "kendall"):
        one = rank_correlation(x, y, kind=kind, resamples=20)
        assert np.isnan(one.value) == (len({*x}) == 1 or len({*y}) == 1)
        other = rank_correlation([math.exp(v) for v in x], [v**3 for v in y], kind=kind, resamples=20)
        flipped = rank_correlation(x, [-v for v in y], kind=kind, resamples=20)
        assert np.array_equal([one.value, one.low, one.high], [other.value, other.low, other.high], equal_nan=True)
        assert np.isclose(one.value, -flipped.value, equal_nan=True) and np.isclose(
            one.low, -flipped.high, equal_nan=True
        )


def test_wrong_use_says_so():
    with pytest.raises(ValueError, match="3 values of x and 2 of y"):
        rank_correlation([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="'pearson'; there are spearman, kendall"):
        rank_correlation([1, 2, 3], [1, 2, 3], kind="pearson")
