"""Check of the planned learning rate."""

import math

import pytest

from spikeless.preflight.checks.learning_rate import learning_rate
from spikeless.preflight.measurements import LearningRateReading, Measurements, ModelReading

MODEL = ModelReading(
    name="m", architecture="a", state="initial", parameters=1, num_layers=1, width=8, vocab_size=9, tied=True
)


def findings(**reading):
    reading = {"optimizer": "AdamW", "eps": 1e-8, "lr": None, "critical": 1e-3} | reading
    critical = reading["critical"]
    reading.setdefault("sharpness", 2 / critical if critical else math.inf)
    found = learning_rate(Measurements(model=MODEL, learning_rate=LearningRateReading(**reading)))
    for each in found:
        assert each.check == "learning_rate"
        if each.severity != "pass":
            assert each.why
            assert each.consequence
            assert each.advice
    return found


def test_nothing_measured_nothing_found():
    assert learning_rate(Measurements(model=MODEL)) == []
    assert findings(critical=math.nan) == []


def test_without_a_plan_eta_c_is_told():
    (found,) = findings()
    assert found.severity == "pass"
    assert "eta_c = 0.001" in found.message
    assert found.value == 1e-3


@pytest.mark.parametrize("lr", [1e-4, 1e-3])
def test_a_plan_up_to_eta_c_passes(lr):
    (found,) = findings(lr=lr)
    assert (found.severity, found.value, found.threshold) == ("pass", lr, 1e-3)
    assert f"lr={lr:g} is" in found.message


def test_no_increase_found_passes():
    (found,) = findings(lr=0.1, critical=math.inf)
    assert found.severity == "pass"
    assert "no rate" in found.message


def test_above_eta_c_it_says_how_to_warm_up():
    (found,) = findings(lr=5e-3)
    assert (found.severity, found.code, found.threshold) == ("warn", "critical", 1e-3)
    assert "5 times" in found.message
    assert "larger" in found.consequence
    assert "at most 0.001" in found.advice


def test_far_above_eta_c_the_words_are_stronger():
    (found,) = findings(lr=2e-2)
    assert found.severity == "warn"
    assert "spikes" in found.consequence
    assert "below 0.019" in found.advice


def test_no_descent_direction():
    (found,) = findings(lr=1e-3, critical=0.0, descent=False)
    assert (found.severity, found.code) == ("warn", "no-descent")


# --- range test ---

SWEEP = {"range_lrs": (1e-3, 1e-2, 1e-1), "range_losses": (9.0, 8.0, 20.0)}


def of_range(**reading):
    return next(each for each in findings(**(SWEEP | {"critical": 1.0} | reading)) if each.code == "range")


@pytest.mark.parametrize(
    ("lr", "severity"), [(0.2, "fail"), (0.1, "fail"), (0.05, "warn"), (0.03, "pass"), (1e-4, "pass"), (None, "pass")]
)
def test_the_plan_against_the_rate_that_blew_up(lr, severity):
    found = of_range(lr=lr, range_limit=0.1)
    assert found.severity == severity
    assert "0.1" in found.message
    assert severity == "pass" or found.threshold == pytest.approx(0.1 if severity == "fail" else 0.1 / math.sqrt(10))


def test_a_range_without_a_blow_up_passes_and_says_how_far_it_went():
    assert of_range(lr=0.01).severity == "pass"
    assert "0.1 without" in of_range(lr=0.01).message
    assert "does not reach" in of_range(lr=0.5).message


@pytest.mark.parametrize(("lr", "severity"), [(0.02, "warn"), (0.01, "warn"), (0.009, "pass"), (None, "pass")])
def test_the_plan_against_the_rate_that_raises_the_averaged_loss(lr, severity):
    (found,) = [
        each for each in findings(lr=lr, critical=1.0, range_limit=0.1, range_rise=0.01, **SWEEP) if each.code == "rise"
    ]
    assert found.severity == severity
    assert "0.01" in found.message
    assert severity == "pass" or "0.002" in found.advice


def test_both_judgements_stand_side_by_side():
    found = findings(lr=0.2, range_limit=0.1, **SWEEP)
    assert [each.code for each in found] == ["critical", "range"]
