import math

import pytest

from spikeless.preflight.checks.initial_weights import initial_weights
from spikeless.preflight.measurements import DeclaredInit, TensorReading

SCHEMES = {
    "normal": lambda role, rows, columns, layer: 0.02,
    "small": lambda role, rows, columns, layer: math.sqrt(2 / (5 * 768)),
    "xavier": lambda role, rows, columns, layer: math.sqrt(2 / (rows + columns)),
    "he": lambda role, rows, columns, layer: math.sqrt(2 / columns),
    "lecun": lambda role, rows, columns, layer: 1 / math.sqrt(columns),
    "torch": lambda role, rows, columns, layer: 1 / math.sqrt(3 * columns),
    "deepseek": lambda role, rows, columns, layer: 0.006,
    "wang": lambda role, rows, columns, layer: (
        2 / (12 * math.sqrt(768)) if role in ("attention_out", "ffn_down") else math.sqrt(2 / (5 * 768))
    ),
    "layer": lambda role, rows, columns, layer: (
        0.02 / math.sqrt(2 * layer + 2) if role in ("attention_out", "ffn_down") else 0.02
    ),
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_known_schemes_pass(weights, judge, scheme):
    assert judge(initial_weights, weights(SCHEMES[scheme])) == {("pass", "std")}


def test_gpt2_and_a_head_pass(weights, judge):
    assert judge(initial_weights, weights(tied=False)) == {("pass", "std")}


@pytest.mark.parametrize(
    ("name", "std", "expected"),
    [
        ("3.ffn.up.weight", 1.0, ("fail", "std-large")),
        ("3.ffn.up.weight", 0.15, ("warn", "std-large")),
        ("3.ffn.up.weight", 0.07, ("pass", "std")),
        ("3.ffn.up.weight", 0.0025, ("warn", "std-small")),
        ("3.ffn.up.weight", 1e-4, ("fail", "std-small")),
        ("3.attention.out.weight", 1e-4, ("fail", "std-small")),
        ("head", 1.0, ("fail", "std-large")),
        ("embedding.weight", 1.0, ("pass", "std")),
        ("embedding.weight", 20.0, ("fail", "std-large")),
        ("positions.weight", 1e-5, ("fail", "std-small")),
    ],
)
def test_what_is_far_from_all_schemes_is_found(weights, judge, name, std, expected):
    assert judge(initial_weights, weights(changes={name: {"std": std}}, tied=False)) == {expected}


def test_the_nearest_scheme_is_named(weights):
    (found,) = initial_weights(weights(changes={"attention.query.weight": {"std": 0.4}}))
    assert found.where == "blocks.0.attention.query.weight"
    assert (
        "12 tensors in 12 layers, such as blocks.0.attention.query.weight, std 0.4 at worst: 11 times too large"
        in found.message
    )
    assert "Xavier, sqrt(2/(d_in + d_out)) = 0.0361" in found.message
    assert found.value == 0.4
    assert found.threshold == pytest.approx(5 / math.sqrt(768))


def test_a_std_near_no_scheme_is_one_finding_whatever_it_hits(weights):
    assert len(initial_weights(weights(lambda *_: 1.0))) == 1


def test_trained_weights_zeros_and_unknown_stds_are_not_judged(weights, judge):
    assert initial_weights(weights(lambda *_: 1.0, state="trained")) == []
    changes = {"3.ffn.up.weight": {"std": math.nan}, "4.ffn.up.weight": {"std": 0.0}}
    assert judge(initial_weights, weights(changes=changes)) == {("pass", "std")}


def test_a_matrix_nobody_placed_is_only_warned_of(weights, judge):
    unplaced = {"3.ffn.up.weight": {"std": 1.0, "role": None}}
    assert judge(initial_weights, weights(changes=unplaced)) == {("warn", "std-large")}
    near = {"3.ffn.up.weight": {"std": 0.15, "role": None}}
    assert judge(initial_weights, weights(changes=near)) == {("pass", "std")}


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [(0.3, 0.047, ("pass", "std")), (0.02, 0.02, ("pass", "std")), (0.005, 0.0001, ("fail", "std-small"))],
)
def test_low_rank_factors_may_be_right_alone_or_as_a_product(weights, judge, outer, inner, expected):
    """At rank 2 the first two have a product of N(0, 0.02^2), or are drawn like a dense matrix."""

    def factor(name, rows, columns, std):
        shape = {"shape": (rows, columns), "fan_in": columns, "fan_out": rows}
        return TensorReading(name=name, role="query", layer=99, **shape, std=std, mean=0.0, max_abs=1.0)

    pair = (factor("q.up", 768, 2, outer), factor("q.down", 2, 768, inner))
    found = judge(initial_weights, weights(extra=pair))
    assert expected in found
    assert len(found) == 1


def test_small_tensors_have_sampling_noise(weights, judge):
    def tiny(std):
        return TensorReading(
            name="x", role="query", layer=0, shape=(3, 3), fan_in=3, fan_out=3, std=std, mean=0.0, max_abs=1.0
        )

    assert judge(initial_weights, weights(extra=(tiny(1.9),))) == {("pass", "std")}


def test_memory_nobody_wrote_is_left_to_another_check(weights, judge):
    garbage = {"std": 1e12, "declared": DeclaredInit(written=False)}
    assert judge(initial_weights, weights(changes={"3.ffn.up.weight": garbage})) == {("pass", "std")}


def test_a_baseline_knows_it_at_another_seed(weights):
    def seeded(worst):
        changes = {"ffn.up.weight": {"std": 1.0}, f"{worst}.ffn.up.weight": {"std": 1.01}}
        return initial_weights(weights(changes=changes))[0].key

    assert seeded("blocks.3") == seeded("blocks.7")
