"""Correlations that were built into the curves are found, and others are not made up."""

import math

import pytest
from scipy import stats

from spikeless.experiments.analysis.outcome import Curve, Outcome
from spikeless.experiments.analysis.stand_in import FINAL_LOSS, READINGS, VARIANCES, StandIn, stand_in

INF, NAN = math.inf, math.nan
TEV, VARIANCE = "tev/mean", "gradient_variance/exact/all"


def run(curves, loss=3.0, arm="baseline", state="finished", **fields):
    """An outcome with {key: values at steps 0, 1, ...} or {key: {step: value}}."""
    read = {key: dict(enumerate(values)) if isinstance(values, list) else values for key, values in curves.items()}
    curves = {
        key: Curve(steps=tuple(values), values=tuple(map(float, values.values()))) for key, values in read.items()
    }
    sizes = {"lr": 0.01, "depth": 2, "width": 64, "seed": 0, "run": "run"} | fields
    return Outcome(arm=arm, state=state, final_val_loss=loss, curves=curves, **sizes)


def within(outcomes, reading=TEV, against=VARIANCE):
    [found] = [e for e in stand_in(outcomes).within if (e.reading, e.against) == (reading, against)]
    return found


def across(outcomes, reading=TEV, against=VARIANCE):
    [found] = [e for e in stand_in(outcomes).across if (e.reading, e.against) == (reading, against)]
    return found


def test_within_runs_by_hand():
    rising, falling = (
        run({TEV: [1, 2, 3, 4], VARIANCE: [5, 6, 7, 80]}),
        run({TEV: [1, 2, 3, 4], VARIANCE: [4, 3, 2, 1]}),
    )
    mixed = run({TEV: [1, 2, 3, 4], VARIANCE: [1, 3, 2, 4]})
    found = within([rising, falling, mixed])
    assert (found.n, found.left_out) == (3, 0)
    assert found.median == pytest.approx(0.8) and found.positive == pytest.approx(2 / 3)
    assert found.low_quartile == pytest.approx(-0.1) and found.high_quartile == pytest.approx(0.9)


def test_within_runs_only_common_steps_count():
    # Every second step has a variance; at the others TEV goes the other way.
    tev = {0: 1, 1: 90, 2: 2, 3: 80, 4: 3, 5: 70, 6: 4, 8: 5}
    found = within([run({TEV: tev, VARIANCE: {0: 1, 2: 2, 4: 3, 6: 4, 7: 0}})])
    assert (found.median, found.n) == (pytest.approx(1), 1)


def test_within_runs_what_has_no_correlation_is_left_out_and_told():
    three = run({TEV: [1, 2, 3], VARIANCE: [1, 2, 3]})
    holes = run({TEV: [1, 2, 3, NAN], VARIANCE: [1, 2, 3, 4]})
    constant = run({TEV: [1, 1, 1, 1], VARIANCE: [1, 2, 3, 4]})
    nothing = run({TEV: [1, 2, 3, 4]})
    good = run({TEV: [1, 2, 3, 4], VARIANCE: [1, 2, 3, INF]})
    found = within([three, holes, constant, nothing, good])
    assert (found.n, found.left_out, found.median, found.positive) == (1, 3, pytest.approx(1), 1.0)
    found = within([constant, nothing])
    assert (found.n, found.left_out) == (0, 1)
    assert math.isnan(found.median) and math.isnan(found.low_quartile) and math.isnan(found.positive)


def test_every_pair_that_was_logged_is_there():
    keys = (*READINGS, *VARIANCES)
    found = stand_in([run({key: [1, 2, 3, 4] for key in keys})])
    assert [(e.reading, e.against) for e in found.within] == [(r, v) for r in READINGS for v in VARIANCES]
    expected = [(r, a) for r in READINGS for a in (*VARIANCES, FINAL_LOSS)] + [(v, FINAL_LOSS) for v in VARIANCES]
    assert [(e.reading, e.against) for e in found.across] == expected
    only = stand_in([run({"tev/std": [1, 2, 3, 4]})])
    assert only.within == () and [(e.reading, e.against) for e in only.across] == [("tev/std", FINAL_LOSS)]
    assert stand_in([]) == stand_in([run({"loss": [3, 2]})]) == StandIn(within=(), across=())


def test_runs_that_have_not_ended_do_not_count():
    curves = {TEV: [1, 2, 3, 4], VARIANCE: [1, 2, 3, 4]}
    assert stand_in([run(curves, state="running", loss=None)]) == StandIn(within=(), across=())


def test_across_runs_a_point_is_a_mean_and_a_geometric_one():
    # Arithmetic means of the variance are 50.5, 10 and 8: they would give another order than 1, 10, 8 do.
    runs = [
        run({TEV: [1, 3], VARIANCE: [0.01, 101]}),
        run({TEV: [9, 9], VARIANCE: [10, 10]}),
        run({TEV: [0, 8], VARIANCE: [8, 8]}),
    ]
    assert across(runs).all.value == pytest.approx(1)
    # And medians or last values of TEV another one than means.
    runs = [
        run({TEV: [1, 1, 10], VARIANCE: [2]}),
        run({TEV: [2, 2, 2], VARIANCE: [1]}),
        run({TEV: [9, 9], VARIANCE: [3]}),
    ]
    assert across(runs).all.value == pytest.approx(1)
    assert across([*runs, run({TEV: [0.1], VARIANCE: [0.0, 99]})]).all.value == pytest.approx(1)


def test_across_runs_a_failed_run_has_the_largest_loss():
    runs = [run({TEV: [tev]}, loss=loss) for tev, loss in ((1, 3.0), (2, 3.1), (3, 3.2))]
    runs.append(run({TEV: [0]}, loss=2.0, state="unhealthy"))
    found = across(runs, against=FINAL_LOSS)
    assert found.all.n == 4
    assert found.all.value == pytest.approx(stats.spearmanr([1, 2, 3, 0], [3.0, 3.1, 3.2, 99]).statistic)


def test_across_runs_of_two_arms_may_say_the_opposite_of_each():
    """Simpson's paradox: within each arm they go together, over both they do not."""
    small = [run({TEV: [1 + i], VARIANCE: [100 + i]}, arm="baseline", seed=i) for i in range(4)]
    large = [run({TEV: [50 + i], VARIANCE: [1 + i]}, arm="embed_norm", seed=i) for i in range(4)]
    lonely = [run({TEV: [20], VARIANCE: [9]}, arm="mlra", seed=i) for i in range(2)]
    found = across(small + large + lonely)
    assert found.all.value < -0.3 and found.all.n == 10
    assert (found.within_arms, found.arms) == (pytest.approx(1), 2)


def test_across_runs_an_arm_is_of_one_depth_and_width():
    shallow = [run({TEV: [1 + i], VARIANCE: [100 + i]}, seed=i) for i in range(3)]
    deep = [run({TEV: [50 - i], VARIANCE: [1 + i]}, seed=i, depth=4) for i in range(3)]
    found = across(shallow + deep)
    assert (found.within_arms, found.arms) == (pytest.approx(0), 2)  # 1 and -1
    assert across(deep[:2]).within_arms is None and across(deep[:2]).arms == 0
    assert math.isnan(across(deep[:2]).all.value)


def test_across_runs_the_interval_covers_a_strong_correlation_and_noise():
    points = [(x, x * 11 % 31 - 15) for x in range(1, 31)]  # a permutation of little order
    strong = across([run({TEV: [x], VARIANCE: [math.exp(x + 0.1 * noise)]}) for x, noise in points])
    none = across([run({TEV: [x], VARIANCE: [math.exp(noise)]}) for x, noise in points])
    assert strong.all.low > 0.8 and none.all.low < 0 < none.all.high
