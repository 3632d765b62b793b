import math

import pytest

from spikeless.preflight.checks.biases import biases


@pytest.mark.parametrize(
    ("part", "std", "mean", "expected"),
    [
        ("ffn.up.bias", 0.0, 0.0, ("pass", "bias")),
        ("ffn.up.bias", 1 / math.sqrt(3 * 768), 0.0, ("pass", "bias")),
        ("ffn.up.bias", 0.02, 0.0, ("pass", "bias")),
        ("ffn.up.bias", 0.2, 0.0, ("warn", "large")),
        ("ffn.up.bias", 0.0, 1.0, ("warn", "large")),
        ("attention_norm.bias", 0.0, 1.0, ("warn", "large")),
    ],
)
def test_biases_before_training(weights, judge, part, std, mean, expected):
    assert judge(biases, weights(changes={part: {"std": std, "mean": mean}})) == {expected}


def test_trained_biases_are_not_judged(weights):
    assert biases(weights(changes={"ffn.up.bias": {"mean": 5.0}}, state="trained")) == []


def test_a_norm_weight_is_no_bias(weights, judge):
    assert judge(biases, weights()) == {("pass", "bias")}
