"""Check of condition 2 on hand-made measurements."""

import math

import pytest

from spikeless.preflight.checks.shortcut import shortcut
from spikeless.preflight.measurements import (
    LayerReading,
    Measurements,
    ModelReading,
    Spread,
    SubLayerReading,
    Theory,
)


def sub_layer(kind="ffn", std: float | None = 1.0, **fields) -> SubLayerReading:
    spread = None if std is None else Spread(min=std / 2, median=std, mean=std)
    return SubLayerReading(kind=kind, shortcut=spread, matrices=(), **fields)


def findings(*layers, gain=None, state="initial", form="pre-norm"):
    model = ModelReading(
        name="m", architecture="a", state=state, parameters=1, num_layers=2, width=8, vocab_size=9, tied=True
    )
    theory = Theory(
        embedding_std=0.02,
        embedding_std_with_eps=0.02,
        first_layer_ffn_gain=gain,
        first_layer_ffn_gain_with_positions=gain,
        sub_layers=(),
        log_gain=0.0,
    )
    readings = tuple(
        LayerReading(index=index, name=f"h.{index}", form=form, sub_layers=subs) for index, subs in enumerate(layers)
    )
    found = shortcut(Measurements(model=model, layers=readings, theory=theory if gain is not None else None))
    for each in found:
        assert each.check == "shortcut"
        assert not each.suggestions
        if each.severity != "pass":
            assert each.value is not None
            assert each.threshold is not None
            assert all((each.why, each.consequence, each.advice))
    return found


def codes(found):
    return [(each.code, each.severity) for each in found]


def test_nothing_measured_nothing_found():
    assert findings() == []
    assert findings((sub_layer(std=None),)) == []


@pytest.mark.parametrize(
    ("gain", "severity"),
    [(0.4, "pass"), (0.82, "pass"), (2.9, "pass"), (3.0, "warn"), (28, "warn"), (650, "warn"), (math.inf, "fail")],
)
def test_the_theory_of_an_initial_model(gain, severity):
    (found,) = findings(gain=gain)
    assert (found.severity, found.value, found.where) == (severity, gain, "layer 0, ffn")


def test_theory_says_nothing_of_a_trained_model():
    assert findings(gain=1e9, state="trained") == []


@pytest.mark.parametrize(
    ("norm", "severity"), [(1.5, "pass"), (3.9, "pass"), (4.0, "warn"), (9e3, "warn"), (2e4, "fail")]
)
def test_the_measured_jacobian_of_the_first_layer(norm, severity):
    (found,) = findings((sub_layer("attention", measured=1.1), sub_layer(measured=norm, std=0.02)))
    assert (found.severity, found.where) == (severity, "layer 0, ffn")
    assert found.code == ("shortcut" if severity == "pass" else "first-layer-jacobian")


def test_a_trained_model_fails_only_where_numbers_end():
    assert codes(findings((sub_layer(measured=2e4),), state="trained")) == [("first-layer-jacobian", "warn")]
    for norm in (math.nan, math.inf):
        assert codes(findings((sub_layer(measured=norm),), state="trained")) == [("first-layer-jacobian", "fail")]


def test_a_small_shortcut_counts_where_its_sub_layer_is_large():
    large, small = sub_layer(std=0.02, measured=8.0), sub_layer(std=0.02, measured=1.3)
    assert codes(findings((sub_layer(measured=1.2),), (small,))) == [("shortcut", "pass")]
    (found,) = findings((sub_layer(measured=1.2),), (large,))
    assert (found.code, found.severity, found.where, found.value) == ("small-shortcut", "warn", "layer 1, ffn", 0.02)


def test_without_a_jacobian_the_estimate_counts_and_without_both_the_shortcut_alone():
    assert codes(findings((sub_layer(std=0.05, estimate=2.0),))) == [("shortcut", "pass")]
    assert codes(findings((sub_layer(std=0.05, estimate=20.0),))) == [("small-shortcut", "warn")]
    assert codes(findings((sub_layer(std=0.05),))) == [("small-shortcut", "warn")]
    assert codes(findings((sub_layer(std=0.5),))) == [("shortcut", "pass")]
    assert findings((sub_layer(std=0.05),), form="post-norm") == []


@pytest.mark.parametrize("std", [0.0, math.inf, math.nan])
def test_no_shortcut_at_all_fails(std):
    (found,) = findings((sub_layer(),), (sub_layer(std=std),))
    assert (found.code, found.severity, found.where) == ("no-shortcut", "fail", "layer 1, ffn")


def test_one_finding_per_problem_of_a_vanilla_model():
    found = findings((sub_layer(std=0.02, measured=12.0),), (sub_layer(std=0.4, measured=1.5),), gain=26.0)
    assert codes(found) == [("first-layer-gain", "warn"), ("first-layer-jacobian", "warn")]


def test_any_report_can_be_judged(any_report):
    shortcut(any_report.measured)
