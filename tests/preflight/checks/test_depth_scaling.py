import math
from dataclasses import replace

import pytest

from spikeless.preflight.checks.depth_scaling import depth_scaling
from spikeless.preflight.measurements import LayerReading

WRITERS = ("attention_out", "ffn_down")


def scaled(*roles, factor=None, base=lambda rows, columns: 0.02, num_layers=12):
    factor = 1 / math.sqrt(2 * num_layers) if factor is None else factor
    return lambda role, rows, columns, layer: base(rows, columns) * (factor if role in roles else 1)


def lecun(rows, columns):
    return 1 / math.sqrt(columns)


def xavier(rows, columns):
    return math.sqrt(2 / (rows + columns))


@pytest.mark.parametrize("base", [lambda rows, columns: 0.02, lecun, xavier])
@pytest.mark.parametrize("num_layers", [2, 4, 12, 48])
def test_the_usual_scaling_passes_under_any_law_of_shape(weights, judge, base, num_layers):
    measured = weights(scaled(*WRITERS, base=base, num_layers=num_layers), num_layers=num_layers)
    assert judge(depth_scaling, measured) == {("pass", "scaled")}


def by_layer(role, rows, columns, layer):
    return 0.02 / math.sqrt(2 * layer + 2) if role in WRITERS else 0.02


@pytest.mark.parametrize(
    "std",
    [
        by_layer,
        scaled(*WRITERS, factor=1 / math.sqrt(12)),
        scaled(*WRITERS, factor=0.0),
        scaled("attention_out", "ffn_down", "value", "ffn_up", factor=96**-0.25, base=xavier),
    ],
)
def test_other_schemes_pass(weights, judge, std):
    assert judge(depth_scaling, weights(std)) == {("pass", "scaled")}


@pytest.mark.parametrize("base", [lambda rows, columns: 0.02, lecun, xavier])
@pytest.mark.parametrize(("num_layers", "severity"), [(2, "pass"), (12, "pass"), (13, "warn"), (48, "warn")])
def test_missing_scaling_is_a_warning_for_deep_models(weights, judge, base, num_layers, severity):
    assert judge(depth_scaling, weights(scaled(base=base), num_layers=num_layers)) == {(severity, "none")}


def test_norms_behind_sub_layers_replace_it(weights, judge):
    layers = tuple(LayerReading(index=i, name=f"blocks.{i}", form="sandwich", sub_layers=()) for i in range(48))
    assert judge(depth_scaling, weights(scaled(), num_layers=48, layers=layers)) == {("pass", "none")}


@pytest.mark.parametrize("num_layers", [2, 4, 12, 48])
@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (("ffn_up",), ("fail", "wrong-matrix")),
        (("value", "ffn_up"), ("fail", "wrong-matrix")),
        (("attention_out", "ffn_up"), ("fail", "wrong-matrix")),
        (("ffn_up", *WRITERS), ("warn", "extra-matrix")),
        (("attention_out",), ("warn", "one-of-two")),
        (("ffn_down",), ("warn", "one-of-two")),
    ],
)
def test_scaling_on_other_matrices_is_found(weights, judge, roles, expected, num_layers):
    measured = weights(scaled(*roles, num_layers=num_layers), num_layers=num_layers)
    if roles == ("ffn_down",) and num_layers == 2:  # half the std at four times the inputs: 1/sqrt(d_in) does the same
        expected = ("pass", "none")
    assert judge(depth_scaling, measured) == {expected}


@pytest.mark.parametrize("num_layers", [2, 3, 4, 12, 32])
def test_a_gated_feed_forward_scaled_twice_by_layer_is_found(weights, judge, num_layers):
    """As in pytorch/torchtitan#3334: w3 takes the depth factor of w2."""

    def std(role, rows, columns, layer):
        return 0.02 / math.sqrt(2 * layer + 2) if role in (*WRITERS, "ffn_up") else 0.02

    assert judge(depth_scaling, weights(std, num_layers=num_layers)) == {("warn", "extra-matrix")}


@pytest.mark.parametrize(
    ("scaled_roles", "expected"), [(WRITERS, ("pass", "scaled")), (("ffn_up",), ("fail", "wrong-matrix"))]
)
def test_fused_projections_are_enough(weights, judge, scaled_roles, expected):
    whole = weights(scaled(*scaled_roles))
    kept = tuple(each for each in whole.tensors if each.role not in ("query", "key", "ffn_gate"))
    assert judge(depth_scaling, replace(whole, tensors=kept)) == {expected}


def test_what_cannot_be_judged_is_left_alone(weights):
    assert depth_scaling(weights(state="trained")) == []
    assert depth_scaling(weights(num_layers=1)) == []
    assert depth_scaling(weights(changes={"weight": {"std": math.nan}})) == []
