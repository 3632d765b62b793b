"""Check of the logits and of the loss against ln V."""

import math

import pytest

from spikeless.preflight.checks.logits import logits
from spikeless.preflight.measurements import LogitsReading, Measurements, ModelReading

LN_V = math.log(50257)


def findings(state="initial", **reading):
    reading = {"std": 0.5, "max_abs": 2.5, "log_sum_exp": LN_V + 0.1, "loss": LN_V + 0.1, "ln_vocab": LN_V} | reading
    model = ModelReading(
        name="m", architecture="a", state=state, parameters=1, num_layers=1, width=8, vocab_size=50257, tied=True
    )
    found = logits(Measurements(model=model, logits=LogitsReading(**reading)))
    for each in found:
        assert (each.check, each.where) == ("logits", "head")
        if each.severity != "pass":
            assert each.why
            assert each.consequence
            assert each.advice
    return found


def test_nothing_measured_nothing_found():
    model = ModelReading(
        name="m", architecture="a", state="initial", parameters=1, num_layers=1, width=8, vocab_size=9, tied=None
    )
    assert logits(Measurements(model=model)) == []


@pytest.mark.parametrize(
    ("excess", "severity", "code"),
    [
        (-1.5, "warn", "initial-loss-low"),
        (-0.9, "pass", "loss"),
        (0.0, "pass", "loss"),
        (0.9, "pass", "loss"),
        (1.1, "warn", "initial-loss"),
        (4.9, "warn", "initial-loss"),
        (5.1, "fail", "initial-loss"),
        (500.0, "fail", "initial-loss"),
    ],
)
def test_the_initial_loss_is_judged_by_ln_v(excess, severity, code):
    (found,) = findings(loss=LN_V + excess)
    assert (found.severity, found.code) == (severity, code)
    assert "initial loss" in found.message
    assert found.value == LN_V + excess


def test_thresholds_are_given_as_the_std_of_the_logits():
    (found,) = findings(loss=LN_V + 2)
    assert found.threshold == pytest.approx(LN_V + 1)
    assert "s = 1.4" in found.why
    (found,) = findings(loss=LN_V + 9)
    assert found.threshold == pytest.approx(LN_V + 5)
    assert "s = 3.2" in found.why


@pytest.mark.parametrize(
    ("loss", "severity"), [(2.9, "pass"), (LN_V + 0.5, "pass"), (LN_V + 1.5, "warn"), (90.0, "warn")]
)
def test_a_trained_model_should_not_be_worse_than_uniform(loss, severity):
    (found,) = findings("trained", loss=loss, std=3.0, max_abs=40.0)
    assert found.severity == severity
    assert "trained" in found.message


@pytest.mark.parametrize("state", ["initial", "trained"])
@pytest.mark.parametrize("field", ["std", "max_abs", "log_sum_exp", "loss"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_fail_in_any_state(state, field, value):
    (found,) = findings(state, **{field: value})
    assert (found.severity, found.code) == ("fail", "not-finite")


def test_large_logits_are_a_warning_of_their_own():
    assert [each.severity for each in findings("trained", max_abs=127.0, loss=3.0)] == ["pass"]
    (found,) = findings("trained", max_abs=150.0, loss=3.0)
    assert (found.severity, found.code, found.threshold) == ("warn", "logits-large", 128.0)
    assert "soft-cap" in found.advice
    (found,) = findings("trained", max_abs=150.0, loss=3.0, log_sum_exp=-100.0)
    assert "drift" in found.advice
    assert [each.code for each in findings(max_abs=400.0, loss=300.0)] == ["initial-loss", "logits-large"]
