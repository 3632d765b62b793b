"""Check of gradients against Adam's epsilon."""

import pytest

from spikeless.preflight.checks.adam_epsilon import adam_epsilon
from spikeless.preflight.measurements import (
    BatchReading,
    LearningRateReading,
    Measurements,
    ModelReading,
    TensorReading,
)


def tensor(name, rms, role="query", shape=(8, 8), **more) -> TensorReading:
    return TensorReading(
        name=name, role=role, layer=0, shape=shape, std=0.02, mean=0.0, max_abs=0.1, gradient_rms=rms, **more
    )


def measured(*tensors, eps: float | None = 1e-8, tied=False, tokens=16) -> Measurements:
    return Measurements(
        model=ModelReading(
            name="m",
            architecture="a",
            state="initial",
            parameters=1,
            num_layers=2,
            width=8,
            vocab_size=1600,
            tied=tied,
        ),
        batch=BatchReading(source="random", sequences=2, tokens=tokens, jacobian_tokens=4),
        tensors=tensors,
        learning_rate=None
        if eps is None
        else LearningRateReading(optimizer="AdamW", eps=eps, lr=None, critical=1e-3, sharpness=2e3),
    )


def one(findings):
    (finding,) = findings
    assert finding.check == "adam_epsilon"
    assert finding.message
    if finding.severity != "pass":
        assert finding.why
        assert finding.consequence
        assert finding.advice
        assert finding.value is not None
        assert finding.threshold is not None
    return finding


def test_gradients_well_above_eps_pass():
    finding = one(adam_epsilon(measured(tensor("a", 1e-4), tensor("b", 1.1e-7))))
    assert (finding.severity, finding.value, finding.threshold) == ("pass", 1.1e-7, pytest.approx(1e-7))


def test_a_gradient_near_eps_is_a_warning_with_the_factor_it_loses():
    finding = one(adam_epsilon(measured(tensor("a", 1e-4), tensor("b", 1e-8))))
    assert (finding.severity, finding.code, finding.where) == ("warn", "epsilon", "b")
    assert "moves by 0.5" in finding.consequence
    assert "1e-10" in finding.advice


def test_many_tensors_are_one_finding():
    finding = one(adam_epsilon(measured(*(tensor(f"t{i}", 1e-9 * (i + 1)) for i in range(5)), tensor("z", 1.0))))
    assert (finding.severity, finding.where) == ("warn", "model")
    assert "5 of 6 tensors" in finding.message
    assert "t0" in finding.message


def test_most_of_a_role_far_below_eps_fails():
    low = [tensor(f"k{i}", 1e-11, "key") for i in range(2)]
    finding = one(adam_epsilon(measured(*low, tensor("k2", 1e-3, "key"), tensor("q", 1e-3))))
    assert finding.severity == "fail"
    assert "most of key" in finding.message
    half = adam_epsilon(measured(*low, tensor("k2", 1e-3, "key"), tensor("k3", 1e-3, "key")))
    assert one(half).severity == "warn"


def test_tensors_without_a_role_never_fail():
    assert one(adam_epsilon(measured(tensor("a", 1e-13, None)))).severity == "warn"


@pytest.mark.parametrize(("tied", "severity"), [(False, "pass"), (True, "warn")])
def test_an_embedding_is_judged_over_the_rows_that_the_batch_can_hold(tied, severity):
    """16 tokens touch at most 16 of 1600 rows: their RMS is at least ten times that of the table."""
    table = tensor("wte", 2e-8, "token_embedding", (1600, 8))
    assert one(adam_epsilon(measured(table, tied=tied))).severity == severity


def test_positions_are_judged_over_the_length_of_a_sequence():
    assert one(adam_epsilon(measured(tensor("wpe", 2e-8, "position_embedding", (800, 8))))).severity == "pass"
    assert one(adam_epsilon(measured(tensor("wpe", 2e-8, "position_embedding", (8, 8))))).severity == "warn"


@pytest.mark.parametrize(
    "name",
    [
        "blocks.0.attention.key.bias",
        "blocks.0.attention.key.up.bias",
        "model.layers.0.self_attn.k_proj.bias",
        "attn.W_k.b_K",
        "h.0.attn.to_k.bias",
    ],
)
@pytest.mark.parametrize("rms", [0.0, 1e-12])
def test_key_biases_are_not_reported(name, rms):
    assert adam_epsilon(measured(tensor(name, rms, "bias", (8,)))) == []
    assert one(adam_epsilon(measured(tensor(name, rms, "bias", (8,)), tensor("a", 1e-3)))).severity == "pass"


@pytest.mark.parametrize("name", ["blocks.0.attention.query.bias", "h.0.attn.query_key_value.bias", "monkey.bias"])
def test_other_biases_are_reported(name):
    assert one(adam_epsilon(measured(tensor(name, 0.0, "bias", (8,))))).code == "no-gradient"


def test_parameters_without_a_gradient_are_a_finding_of_their_own():
    found = adam_epsilon(measured(*(tensor(f"dead{i}", 0.0) for i in range(5)), tensor("a", 1e-3)))
    assert [(f.code, f.severity) for f in found] == [("no-gradient", "warn"), ("epsilon", "pass")]
    assert "5 parameters get" in found[0].message
    assert "dead2 and 2 more" in found[0].message
    assert "a detach" in found[0].advice


def test_a_matrix_of_zeros_is_named_as_the_reason():
    zero = tensor("out.weight", 1e-3, "attention_out", zeros=1.0)
    found = adam_epsilon(measured(tensor("value.weight", 0.0), zero))
    assert found[0].where == "value.weight"
    assert "out.weight" in found[0].advice


def test_without_an_optimizer_only_dead_parameters_are_told():
    assert one(adam_epsilon(measured(tensor("a", 1e-20), eps=None))).severity == "pass"
    assert one(adam_epsilon(measured(tensor("a", 0.0), tensor("b", 1e-3), eps=None))).code == "no-gradient"


def test_without_gradients_there_is_nothing_to_judge():
    assert adam_epsilon(measured()) == []
    assert adam_epsilon(measured(tensor("a", None))) == []
    assert adam_epsilon(measured(tensor("a", float("nan")))) == []
