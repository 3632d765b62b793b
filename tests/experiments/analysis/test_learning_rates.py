"""Grids whose answers are known by hand."""

import math

import pytest

from spikeless.experiments.analysis.learning_rates import DEFINITIONS, TOLERANCE, by_arm, edge_warning, study_arms
from spikeless.experiments.analysis.outcome import Outcome

INF = math.inf


def grid(arm, losses, depth=2, width=64, initial=7.0):
    """One outcome a loss of {lr: (loss by seed)}; None is a run that has not ended."""
    runs = []
    for lr, finals in losses.items():
        for seed, final in enumerate(finals):
            state = "running" if final is None else "unhealthy" if final == INF else "finished"
            fields = {"state": state, "final_val_loss": final, "initial_val_loss": initial}
            runs.append(
                Outcome(arm=arm, lr=lr, depth=depth, width=width, seed=seed, run=f"{arm}-{lr}-{seed}", **fields)
            )
    return runs


BASELINE = {0.001: (4.0, 4.2, 4.1), 0.003: (3.5, 3.6, 3.4), 0.01: (3.6, 3.65, 3.9), 0.03: (INF, INF, 5.0)}


def test_one_arm_by_hand():
    [study] = study_arms(grid("baseline", BASELINE))
    assert (study.arm, study.depth, study.width) == ("baseline", 2, 64)
    assert study.lrs == (0.001, 0.003, 0.01, 0.03)
    assert study.losses == (4.1, 3.5, 3.65, INF)
    assert study.ranges == ((4.0, 4.2), (3.4, 3.6), (3.6, 3.9), (5.0, INF))
    assert study.seeds == (3, 3, 3, 3) and study.failed == (0, 0, 0, 2)
    assert (study.best_lr, study.best_loss, study.edge) == (0.003, 3.5, "")
    assert study.largest_stable_lr == 0.01 and not study.stable_censored
    assert (study.headroom, study.headroom_bound) == (1.0, "")
    assert study.sensitivity == pytest.approx((4.1 + 3.5 + 3.65 + 7.0) / 4 - 3.5)
    assert edge_warning(study) is None


def test_the_order_of_the_runs_does_not_matter():
    runs = grid("baseline", BASELINE)
    assert study_arms(runs[::-1]) == study_arms(runs)


def test_one_failed_seed_is_not_stable_though_its_median_is():
    [study] = study_arms(grid("baseline", BASELINE | {0.01: (3.5, 3.5, INF)}))
    assert study.losses[2] == 3.5 and study.failed == (0, 0, 1, 2)
    assert study.largest_stable_lr == 0.003
    [never] = study_arms(grid("baseline", {0.1: (3.0, 3.0, INF), 0.2: (3.1, INF, 3.1)}))
    assert never.largest_stable_lr is None and never.headroom is None and not never.stable_censored


@pytest.mark.parametrize(("loss", "stable"), [(3.5 + TOLERANCE - 0.001, 0.01), (3.5 + TOLERANCE + 0.001, 0.003)])
def test_the_tolerance_decides(loss, stable):
    [study] = study_arms(grid("baseline", BASELINE | {0.01: (loss,) * 3}))
    assert study.largest_stable_lr == stable


def test_a_rate_between_that_is_bad_does_not_end_the_grid():
    [study] = study_arms(grid("baseline", {0.1: (3.0,), 0.2: (3.9,), 0.4: (3.1,), 0.8: (5.0,)}))
    assert study.largest_stable_lr == 0.4


@pytest.mark.parametrize(
    ("losses", "best", "edge", "warning"),
    [
        ({0.01: 3.0, 0.03: 3.5}, 0.01, "low", "the best learning rate 0.01 is the grid's smallest; give smaller ones"),
        ({0.01: 3.5, 0.03: 3.0}, 0.03, "high", "the best learning rate 0.03 is the grid's largest; give larger ones"),
        ({0.01: 3.0, 0.03: 3.0}, 0.01, "low", "the best learning rate 0.01 is the grid's smallest; give smaller ones"),
        ({0.01: 3.0}, 0.01, "only", "the only learning rate is 0.01; give smaller and larger ones"),
        ({0.01: INF, 0.03: INF}, None, "", "at every learning rate half of the runs or more failed; give smaller ones"),
    ],
)
def test_a_best_rate_at_the_edge_is_told(losses, best, edge, warning):
    [study] = study_arms(grid("mlra", {lr: (loss,) for lr, loss in losses.items()}))
    assert (study.best_lr, study.edge, edge_warning(study)) == (best, edge, f"mlra: {warning}")


WIDE = {0.001: (3.5,), 0.01: (3.4,), 0.1: (9.0,)}
CENSORED = {0.001: (3.5,), 0.01: (3.4,), 0.1: (3.5,)}


@pytest.mark.parametrize(
    ("ours", "theirs", "headroom", "bound"),
    [
        (WIDE, WIDE, 1.0, ""),
        (CENSORED, WIDE, 10.0, "at least"),
        (WIDE, CENSORED, 0.1, "at most"),
        (CENSORED, CENSORED, 1.0, "unknown"),
        (WIDE, {0.001: (INF,)}, None, ""),
        ({0.001: (INF,)}, WIDE, None, ""),
    ],
)
def test_headroom_and_what_the_grid_hides_of_it(ours, theirs, headroom, bound):
    mlra, baseline = study_arms(grid("mlra", ours) + grid("baseline", theirs))
    assert mlra.arm == "mlra" and mlra.stable_censored == (ours is CENSORED)
    assert mlra.headroom == (None if headroom is None else pytest.approx(headroom))
    assert mlra.headroom_bound == bound
    assert baseline.headroom_bound == "" and baseline.headroom in (1.0, None)


def test_headroom_is_relative_to_the_same_depth_and_width():
    runs = grid("baseline", WIDE) + grid("mlra", CENSORED) + grid("baseline", CENSORED, depth=4)
    runs += grid("mlra", WIDE, depth=4) + grid("mlra", WIDE, depth=4, width=128)
    studies = study_arms(runs)
    found = [(each.arm, each.depth, each.width, each.headroom) for each in studies]
    assert found == [
        ("baseline", 2, 64, 1.0),
        ("mlra", 2, 64, pytest.approx(10)),
        ("baseline", 4, 64, 1.0),
        ("mlra", 4, 64, pytest.approx(0.1)),
        ("mlra", 4, 128, None),
    ]
    assert [*by_arm(runs)] == [(each.depth, each.width, each.arm) for each in studies]


def test_the_baseline_is_named_or_first():
    runs = grid("a", WIDE) + grid("b", CENSORED)
    assert [study.headroom for study in study_arms(runs)] == [1.0, pytest.approx(10)]
    assert [study.headroom for study in study_arms(runs, baseline="b")] == [pytest.approx(0.1), 1.0]
    # A baseline that has not ended yet is one all the same: no other arm takes its place.
    runs += grid("baseline", {0.01: (None,)})
    assert [(study.arm, study.headroom) for study in study_arms(runs)] == [("a", None), ("b", None)]


def test_runs_that_have_not_ended_do_not_count():
    [study] = study_arms(grid("baseline", {0.01: (3.0, None, 3.2), 0.03: (3.5, 3.5, 3.5), 0.1: (None,)}))
    assert study.lrs == (0.01, 0.03) and study.seeds == (2, 3) and study.losses == (pytest.approx(3.1), 3.5)
    assert study_arms([]) == [] == study_arms(grid("baseline", {0.01: (None,)}))


def test_a_crashed_run_and_a_loss_that_is_no_number_have_failed():
    runs = grid("baseline", {0.01: (3.0, 3.0), 0.03: (3.1, math.nan)})
    runs.append(
        Outcome(arm="baseline", lr=0.01, depth=2, width=64, seed=2, run="c", state="crashed", final_val_loss=2.0)
    )
    [study] = study_arms(runs)
    assert study.failed == (1, 1) and study.losses == (3.0, INF) and study.ranges[0] == (3.0, INF)
    assert study.largest_stable_lr is None


def test_sensitivity():
    def of(losses, **known):
        return study_arms(grid("baseline", losses, **known))[0].sensitivity

    losses = {0.001: (4.0,), 0.01: (3.0,), 0.1: (12.0,), 1.0: (INF,)}
    assert of(losses, initial=6.0) == pytest.approx((1 + 0 + 3 + 3) / 4)
    assert of(losses, initial=None) is None
    assert of({0.001: (INF,), 0.01: (INF,)}) is None
    assert of({0.001: (3.0,)}) is None
    assert of({0.001: (3.0,), 0.01: (3.0,)}) == 0.0
    assert of({0.001: (9.0,), 0.01: (8.0,)}, initial=6.0) == 0.0  # never below


def test_definitions_are_sentences():
    assert [*DEFINITIONS] == ["largest stable learning rate", "headroom", "learning-rate sensitivity", "edge"]
    assert "0.2 nats" in DEFINITIONS["largest stable learning rate"]
