import math
import random
from dataclasses import replace

import pytest

from spikeless.preflight.checks.layers_alike import layers_alike
from spikeless.preflight.measurements import DeclaredInit

NORMAL = DeclaredInit(written=True, distribution="normal", std=0.02)
UNIFORM = DeclaredInit(written=True, distribution="uniform", std=0.02)


def by_layer(power):
    return lambda role, rows, columns, layer: 0.02 * (layer + 1) ** power


@pytest.mark.parametrize(
    ("power", "num_layers"), [(0.0, 2), (0.0, 3), (0.0, 12), (-0.5, 2), (-0.5, 3), (-0.5, 12), (-1.0, 4), (-1.0, 12)]
)
def test_known_laws_of_depth_pass(weights, judge, power, num_layers):
    assert judge(layers_alike, weights(by_layer(power), num_layers=num_layers)) == {("pass", "layers")}


def test_one_layer_has_nothing_to_be_compared_with(weights):
    assert layers_alike(weights(num_layers=1)) == []


def test_sampling_noise_passes(weights, judge):
    draw = random.Random(0)
    noisy = weights(lambda *_: 0.02 * draw.gauss(1, 1 / math.sqrt(2 * 1024)), num_layers=48)
    tensors = tuple(replace(each, shape=(32, 32)) if each.fan_in else each for each in noisy.tensors)
    assert judge(layers_alike, replace(noisy, tensors=tensors)) == {("pass", "layers")}


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (1.1, ("pass", "layers")),
        (1.4, ("warn", "layer-unlike")),
        (1 / 1.4, ("warn", "layer-unlike")),
        (4.9, ("fail", "layer-unlike")),
        (0.2, ("fail", "layer-unlike")),
    ],
)
@pytest.mark.parametrize("power", [0.0, -0.5])
def test_one_layer_at_another_scheme_stands_out(weights, judge, factor, expected, power):
    def std(role, rows, columns, layer):
        return 0.02 * (layer + 1) ** power * (factor if (role, layer) == ("ffn_down", 5) else 1)

    measured = weights(std)
    assert judge(layers_alike, measured) == {expected}
    if expected[0] != "pass":
        (found,) = layers_alike(measured)
        assert found.where == "blocks.5.ffn.down.weight"
        assert found.value == pytest.approx(max(factor, 1 / factor), rel=0.01)


def test_an_unknown_law_is_only_a_warning(weights, judge):
    growing = weights(lambda role, rows, columns, layer: 0.002 * 1.5**layer)
    assert judge(layers_alike, growing) == {("warn", "layers-irregular")}
    two = weights(by_layer(-3.0), num_layers=2)
    assert judge(layers_alike, two) == {("warn", "layers-irregular")}


def test_another_distribution_is_told(weights, judge):
    changes = {"ffn.up.weight": {"declared": NORMAL}, "5.ffn.up.weight": {"declared": UNIFORM}}
    assert judge(layers_alike, weights(changes=changes)) == {("warn", "distribution-unlike")}
    assert judge(layers_alike, weights(changes={"ffn.up.weight": {"declared": UNIFORM}})) == {("pass", "layers")}


def test_garbage_and_constants_are_left_to_another_check(weights, judge):
    garbage = {"std": 1e12, "declared": DeclaredInit(written=False)}
    constant = {"std": 0.0, "declared": DeclaredInit(written=True, distribution="constant", std=0.0)}
    for change in (garbage, constant):
        changes = {"ffn.up.weight": {"declared": NORMAL}, "5.ffn.up.weight": change}
        assert judge(layers_alike, weights(changes=changes)) == {("pass", "layers")}


def test_zeros_and_trained_weights_are_not_judged(weights, judge):
    assert judge(layers_alike, weights(changes={"5.ffn.up.weight": {"std": 0.0}})) == {("pass", "layers")}
    assert layers_alike(weights(by_layer(3.0), state="trained")) == []
