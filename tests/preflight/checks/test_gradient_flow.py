"""Check of gradient and stream over depth on hand-made measurements."""

import math

import pytest

from spikeless.preflight.checks.gradient_flow import gradient_flow
from spikeless.preflight.measurements import GrowthFit, LayerReading, Measurements, ModelReading, TensorReading


def fit(ratio, better="linear") -> GrowthFit:
    return GrowthFit(log_slope=0.1, linear_slope=0.1, better=better, ratio=ratio)


def findings(*, gradient=None, stream=None, norms=(), state="initial", zero_head=False):
    model = ModelReading(
        name="m", architecture="a", state=state, parameters=1, num_layers=2, width=8, vocab_size=9, tied=True
    )
    layers = tuple(
        LayerReading(index=index, name=f"h.{index}", form="pre-norm", sub_layers=(), gradient_norm=norm)
        for index, norm in enumerate(norms)
    )
    head = TensorReading(
        name="head", role="head", layer=None, shape=(9, 8), std=0.0, mean=0.0, max_abs=0.0, zeros=float(zero_head)
    )
    found = gradient_flow(
        Measurements(model=model, layers=layers, tensors=(head,), gradient_growth=gradient, residual_growth=stream)
    )
    for each in found:
        assert (each.check, each.where) == ("gradient_flow", "model")
        assert not each.suggestions
        if each.severity != "pass":
            assert each.value is not None
            assert all((each.why, each.consequence, each.advice))
    return found


def test_nothing_measured_nothing_found():
    assert findings() == []


@pytest.mark.parametrize(
    ("shallow_over_deep", "code", "severity"),
    [
        (1.0, "gradient", "pass"),
        (4.9, "gradient", "pass"),
        (5.1, "gradient-growth", "warn"),
        (9e3, "gradient-growth", "warn"),
        (2e4, "gradient-growth", "fail"),
        (0.02, "gradient", "pass"),
        (0.005, "gradient-vanishing", "warn"),
    ],
)
def test_the_gradient_over_depth(shallow_over_deep, code, severity):
    (found,) = findings(gradient=fit(1 / shallow_over_deep))
    assert (found.code, found.severity) == (code, severity)
    assert found.value == pytest.approx(shallow_over_deep)


def test_a_trained_model_only_gets_a_warning():
    assert [each.severity for each in findings(gradient=fit(1e-6), state="trained")] == ["warn"]
    assert [each.severity for each in findings(stream=fit(1e9), state="trained")] == ["pass"]


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_gradients_that_are_not_finite(norm):
    (found,) = findings(norms=(1.0, norm), gradient=fit(1.0))
    assert (found.code, found.severity) == ("gradient-not-finite", "fail")
    assert [each.code for each in findings(gradient=fit(norm))] == ["gradient-not-finite"]


def test_gradients_of_exactly_zero():
    (found,) = findings(norms=(0.0, 1.0))
    assert (found.code, found.severity) == ("gradient-zero", "fail")
    assert [each.severity for each in findings(norms=(0.0, 0.0))] == ["fail"]
    assert [each.severity for each in findings(norms=(0.0, 0.0), zero_head=True)] == ["warn"]
    assert [each.severity for each in findings(norms=(0.0, 1.0), zero_head=True)] == ["fail"]


@pytest.mark.parametrize(
    ("ratio", "better", "severity"),
    [
        (190, "linear", "pass"),
        (50, "exponential", "pass"),
        (150, "exponential", "warn"),
        (1e7, "linear", "pass"),
        (1e9, "linear", "fail"),
        (math.inf, "exponential", "fail"),
    ],
)
def test_the_stream_over_depth(ratio, better, severity):
    (found,) = findings(stream=fit(ratio, better))
    assert (found.code, found.severity) == ("stream" if severity == "pass" else "residual-growth", severity)


def test_both_problems_are_told():
    found = findings(gradient=fit(0.01), stream=fit(1e3, "exponential"))
    assert [each.code for each in found] == ["gradient-growth", "residual-growth"]


def test_any_report_can_be_judged(any_report):
    gradient_flow(any_report.measured)
