"""Check of condition 1 on hand-made measurements."""

import math

import pytest

from spikeless.preflight.checks.sub_layers import sub_layers
from spikeless.preflight.measurements import (
    LayerReading,
    MatrixReading,
    Measurements,
    ModelReading,
    Spread,
    SubLayerReading,
    Theory,
    TheorySubLayer,
)


def matrix(name="w", role="ffn_down", std=0.02, ratio: float | None = 1.0) -> MatrixReading:
    norm = None if ratio is None else 2.0 * ratio
    return MatrixReading(name=name, role=role, shape=(8, 8), std=std, spectral_norm=norm, gaussian=2.0)


def sub_layer(kind="ffn", matrices=(), **fields) -> SubLayerReading:
    shortcut = Spread(min=0.5, median=0.5, mean=0.5)
    return SubLayerReading(kind=kind, shortcut=shortcut, matrices=tuple(matrices), **fields)


def findings(*layers, strengths=None, state="initial"):
    model = ModelReading(
        name="m", architecture="a", state=state, parameters=1, num_layers=8, width=1000, vocab_size=9, tied=True
    )
    theory = strengths and Theory(
        embedding_std=0.02,
        embedding_std_with_eps=0.02,
        first_layer_ffn_gain=1.0,
        first_layer_ffn_gain_with_positions=1.0,
        sub_layers=tuple(
            TheorySubLayer(layer=index, kind="ffn", shortcut=0.1, gain=10 * each)
            for index, each in enumerate(strengths)
        ),
        log_gain=1.0,
    )
    readings = tuple(
        LayerReading(index=index, name=f"h.{index}", form="pre-norm", sub_layers=subs)
        for index, subs in enumerate(layers)
    )
    found = sub_layers(Measurements(model=model, layers=readings, theory=theory))
    for each in found:
        assert each.check == "sub_layers"
        assert not each.suggestions
        if each.severity != "pass":
            assert each.value is not None
            assert each.threshold is not None
            assert all((each.why, each.consequence, each.advice))
    return found


def test_nothing_measured_nothing_found():
    assert findings() == []
    assert findings((sub_layer(),)) == []


@pytest.mark.parametrize(
    ("strength", "severity"), [(0.4, "pass"), (2.5, "pass"), (3.01, "warn"), (6.9, "warn"), (1e9, "warn")]
)
def test_strength_by_theory(strength, severity):
    """2.5 is the strongest of small init, with one layer; 6.9 is Xavier."""
    (found,) = findings(strengths=(0.1, strength, 0.2))
    assert (found.severity, found.where) == (severity, "layer 1, ffn")
    assert found.value == pytest.approx(strength)


def test_strength_by_the_estimates_names_the_matrix():
    small = math.sqrt(2 / 5000)
    up, down = matrix("up", "ffn_up", 1.5 * small), matrix("down", "ffn_down", small)
    (found,) = findings((sub_layer(estimate=1.1),), (sub_layer(estimate=11.0, matrices=(up, down)),))
    assert (found.code, found.value) == ("large-sub-layer", 5.0)
    assert "down has 4 times the std of small init" in found.message  # sqrt(2 L) without depth scaling


def test_a_trained_model_is_as_strong_as_it_likes():
    assert findings((sub_layer(estimate=1e5),), state="trained", strengths=(1e4,)) == []


def test_bounds_that_hold():
    (found,) = findings((sub_layer(bound=4.0, measured=2.0), sub_layer(bound=8.0, measured=2.0)))
    assert (found.severity, found.message) == ("pass", "all 2 bounds hold, by factors of 2 to 4")


@pytest.mark.parametrize(("measured", "broken"), [(4.0, False), (4.003, False), (4.005, True)])
def test_a_bound_that_does_not_hold_is_said(measured, broken):
    found = findings((sub_layer(bound=4.0, measured=measured, note="GELU"),), state="trained")
    assert [each.code for each in found if each.severity == "warn"] == (["bound-violated"] if broken else [])
    assert not broken or "(GELU)" in found[0].message


def test_structure_in_an_initial_matrix():
    readings = (sub_layer(matrices=(matrix(ratio=1.05), matrix(ratio=None))),)
    assert findings(readings) == []
    readings = (sub_layer(matrices=(matrix("a", ratio=1.6), matrix("b", ratio=4.0), matrix("c @ d", ratio=9.0))),)
    (found,) = findings(readings)
    assert (found.code, found.severity, found.where, found.value) == ("dependent-entries", "warn", "b", 4.0)
    assert findings(readings, state="trained") == []


@pytest.mark.parametrize("norm", [1e7, math.inf, math.nan])
def test_a_jacobian_that_nothing_survives(norm):
    (found,) = findings((sub_layer(measured=1e9),), (sub_layer(measured=norm),), state="trained")
    assert (found.code, found.severity, found.where) == ("jacobian", "fail", "layer 1, ffn")


def test_any_report_can_be_judged(any_report):
    sub_layers(any_report.measured)
