import math

import pytest

from spikeless.preflight.checks.norm_gains import norm_gains


def gain(low, high=None):
    return {"attention_norm.weight": {"gain_min": low, "gain_max": low if high is None else high}}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.0, 1.0, ("pass", "gain")),
        (0.97, 1.03, ("pass", "gain")),
        (1 / math.sqrt(24), 1 / math.sqrt(24), ("pass", "gain")),
        (0.9, 1.1, ("warn", "gain-off")),
        (2.0, 2.0, ("warn", "gain-off")),
        (0.5, 0.9, ("warn", "gain-off")),
        (-1.0, 1.0, ("warn", "gain-off")),
        (6.0, 6.0, ("fail", "gain-off")),
        (0.001, 0.001, ("fail", "gain-off")),
        (0.0, 0.0, ("pass", "gain")),
    ],
)
def test_gains_before_training(weights, judge, low, high, expected):
    assert judge(norm_gains, weights(changes=gain(low, high))) == {expected}


def test_gains_that_fall_with_the_layer_pass(weights, judge):
    changes = {
        f"blocks.{i}.attention_norm.weight": {"gain_min": (i + 1) ** -0.5, "gain_max": (i + 1) ** -0.5}
        for i in range(12)
    }
    assert judge(norm_gains, weights(changes=changes)) == {("pass", "gain")}


def test_trained_gains_are_not_judged(weights):
    assert norm_gains(weights(changes=gain(-3.0, 30.0), state="trained")) == []
    assert norm_gains(weights(changes={"norm.weight": {"gain_min": None, "gain_max": None}})) == []
