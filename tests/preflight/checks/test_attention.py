"""Check of attention logits and entropy."""

import math

import pytest

from spikeless.preflight.checks.attention import attention
from spikeless.preflight.measurements import AttentionReading, LayerReading, Measurements, ModelReading


def reading(logit_max=2.0, relative_entropy=0.95, lowest_head=0.9):
    return AttentionReading(
        logit_max=logit_max, entropy=4.0, relative_entropy=relative_entropy, lowest_head=lowest_head
    )


def findings(*readings, state="initial"):
    model = ModelReading(
        name="m",
        architecture="a",
        state=state,
        parameters=1,
        num_layers=len(readings),
        width=8,
        vocab_size=9,
        tied=True,
    )
    layers = tuple(
        LayerReading(index=i, name=f"h.{i}", form="pre-norm", sub_layers=(), attention=each)
        for i, each in enumerate(readings)
    )
    found = attention(Measurements(model=model, layers=layers))
    for each in found:
        assert each.check == "attention"
        assert each.value is not None
        if each.severity != "pass":
            assert each.why
            assert each.consequence
            assert each.advice
    return found


def test_no_softmax_seen_nothing_found():
    assert findings() == []
    assert findings(None, None) == []


@pytest.mark.parametrize("state", ["initial", "trained"])
def test_a_healthy_model_passes_with_its_numbers(state):
    (found,) = findings(reading(), None, reading(logit_max=3.5, relative_entropy=0.8), state=state)
    assert found.severity == "pass"
    assert "3.5" in found.message
    assert "0.8" in found.message


def test_a_trained_model_with_sharp_heads_is_healthy():
    (found,) = findings(reading(30.0, 0.3, 0.001), reading(20.0, 0.1, 0.0), state="trained")
    assert found.severity == "pass"


@pytest.mark.parametrize("state", ["initial", "trained"])
@pytest.mark.parametrize("bad", [reading(math.inf), reading(math.nan), reading(relative_entropy=math.nan)])
def test_logits_that_are_not_finite_fail_in_any_state(state, bad):
    (found,) = findings(reading(), bad, state=state)
    assert (found.severity, found.code, found.where) == ("fail", "not-finite", "layer 1")
    (found,) = findings(reading(), bad, bad, state=state)
    assert found.where == "model"
    assert "2 layers, first in layer 1" in found.message


@pytest.mark.parametrize(("largest", "threshold"), [(50.0, None), (51.0, 50.0), (100.0, 50.0), (101.0, 100.0)])
def test_large_logits_warn_in_two_degrees(largest, threshold):
    (found,) = findings(reading(), reading(largest), state="trained")
    assert found.severity == ("pass" if threshold is None else "warn")
    if threshold:
        assert (found.code, found.where, found.value, found.threshold) == ("logit-max", "layer 1", largest, threshold)


def test_many_layers_are_one_finding_that_names_the_worst():
    (found,) = findings(reading(60.0), reading(), reading(70.0), reading(65.0), state="trained")
    assert found.where == "model"
    assert "in 3 of 4 layers, worst in layer 2" in found.message


@pytest.mark.parametrize(
    ("state", "entropy", "code"),
    [
        ("initial", 0.51, "attention"),
        ("initial", 0.49, "sharp-at-start"),
        ("initial", 0.04, "entropy-collapse"),
        ("trained", 0.06, "attention"),
        ("trained", 0.04, "entropy-collapse"),
    ],
)
def test_entropy_is_judged_by_the_state(state, entropy, code):
    (found,) = findings(reading(), reading(relative_entropy=entropy, lowest_head=0.0), state=state)
    assert found.code == code
    assert found.severity == ("pass" if code == "attention" else "warn")
    assert found.where == ("model" if code == "attention" else "layer 1")


def test_both_problems_are_told():
    found = findings(reading(300.0, 0.01, 0.0))
    assert [each.code for each in found] == ["logit-max", "entropy-collapse"]
