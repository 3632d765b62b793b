import math
from dataclasses import replace

import pytest

from spikeless.preflight.checks.broken_weights import broken_weights
from spikeless.preflight.measurements import DeclaredInit, LayerReading, TensorReading, TevReading

ZERO = {"std": 0.0, "zeros": 1.0, "constant": True, "max_abs": 0.0}
CONSTANT = {"std": 0.0, "mean": 0.02, "constant": True}
UNWRITTEN = {"declared": DeclaredInit(written=False)}


@pytest.mark.parametrize("state", ["initial", "trained"])
@pytest.mark.parametrize("tied", [True, False])
def test_healthy_weights_pass(weights, judge, state, tied):
    assert judge(broken_weights, weights(state=state, tied=tied)) == {("pass", "weights")}


def test_nothing_measured_nothing_found(weights):
    assert broken_weights(replace(weights(), tensors=())) == []


@pytest.mark.parametrize("state", ["initial", "trained"])
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"3.ffn.up.weight": {"finite": 1 - 1e-6}}, "not-finite"),
        ({"3.attention_norm.weight": {"finite": 0.5}}, "not-finite"),
        ({"3.ffn.up.bias": {"finite": 0.0, "std": math.nan}}, "not-finite"),
        ({"3.ffn.up.weight": UNWRITTEN}, "never-written"),
        ({"head": UNWRITTEN}, "never-written"),
        ({"3.ffn.up.bias": UNWRITTEN}, "never-written"),
        ({"3.ffn.up.weight": ZERO}, "zero-matrix"),
        ({"attention.value.weight": ZERO}, "zero-matrix"),
        ({"embedding.weight": ZERO}, "zero-matrix"),
        ({"3.ffn.up.weight": CONSTANT}, "constant-matrix"),
        ({"embedding.weight": CONSTANT}, "constant-matrix"),
        ({"attention.out.weight": CONSTANT}, "constant-matrix"),
        ({"head": CONSTANT}, "constant-matrix"),
        ({"3.attention_norm.weight": {"gain_min": 0.0, "gain_max": 0.0}}, "zero-gain"),
    ],
)
def test_broken_weights_fail_in_any_state(weights, judge, state, change, code):
    assert judge(broken_weights, weights(changes=change, state=state, tied=False)) == {("fail", code)}


@pytest.mark.parametrize("name", ["attention.out.weight", "ffn.down.weight", "head", "attention.query.weight"])
def test_schemes_that_start_at_zero_pass(weights, judge, name):
    measured = weights(changes={name: ZERO}, tied=False)
    assert judge(broken_weights, measured) == {("pass", "zero-at-first"), ("pass", "weights")}


@pytest.mark.parametrize("name", ["attention.out", "ffn.down", "attention.query"])
def test_a_zero_in_one_layer_only_is_no_scheme(weights, judge, name):
    assert judge(broken_weights, weights(changes={f"3.{name}.weight": ZERO})) == {("fail", "zero-matrix")}


@pytest.mark.parametrize("pair", [("query", "key"), ("value", "out")])
def test_two_zeros_in_a_row_never_learn(weights, judge, pair):
    changes = {f"attention.{name}.weight": ZERO for name in pair}
    assert judge(broken_weights, weights(changes=changes)) == {("fail", "zero-matrix")}


def test_an_identity_block_of_a_trained_model_is_a_warning(weights, judge):
    changes = {"3.attention.out.weight": ZERO, "3.ffn.down.weight": ZERO}
    assert judge(broken_weights, weights(changes=changes, state="trained")) == {("warn", "zero-matrix")}
    assert judge(broken_weights, weights(changes={"head": ZERO}, state="trained", tied=False)) == {
        ("fail", "zero-matrix")
    }


def test_many_layers_are_one_finding(weights):
    changes = {"ffn.up.weight": {"finite": 0.9}}
    (found,) = broken_weights(weights(changes=changes))
    assert found.where == "blocks.0.ffn.up.weight"
    assert "12 tensors in 12 layers, such as blocks.0.ffn.up.weight" in found.message


def low_rank(outer, inner):
    up = TensorReading(
        name="q.up", role="query", layer=99, shape=(768, 8), fan_in=8, fan_out=768, std=0.1, mean=0, max_abs=1
    )
    down = replace(up, name="q.down", shape=(8, 768), fan_in=768, fan_out=8)
    return replace(up, **outer), replace(down, **inner)


def test_one_factor_of_a_product_may_be_zero(weights, judge):
    one = weights(extra=low_rank(ZERO, {}))
    assert judge(broken_weights, one) == {("pass", "zero-at-first"), ("pass", "weights")}
    assert judge(broken_weights, weights(extra=low_rank(ZERO, ZERO))) == {("fail", "zero-matrix")}


def test_matrices_nobody_placed_are_warned_of(weights, judge):
    changes = {"3.ffn.up.weight": ZERO | {"role": None}, "4.ffn.up.weight": CONSTANT | {"role": None}}
    assert judge(broken_weights, weights(changes=changes)) == {("warn", "zero-matrix"), ("warn", "constant-matrix")}


def test_a_closed_gain_behind_a_sub_layer_is_a_warning(weights, judge):
    changes = {"attention_norm.weight": {"gain_min": 0.0, "gain_max": 0.0}}
    layers = tuple(LayerReading(index=i, name=f"blocks.{i}", form="sandwich", sub_layers=()) for i in range(12))
    assert judge(broken_weights, weights(changes=changes, layers=layers)) == {("warn", "zero-gain")}


@pytest.mark.parametrize(("spread", "expected"), [(1e-9, ("fail", "same-rows")), (0.0005, ("pass", "weights"))])
def test_rows_that_are_all_the_same(weights, judge, spread, expected):
    tev = TevReading(name="embedding.weight", mean=0.02, std=spread)
    assert judge(broken_weights, weights(tev=tev)) == {expected}
