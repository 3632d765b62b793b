import pytest

from spikeless.preflight.checks.truncation import truncation
from spikeless.preflight.measurements import DeclaredInit


def cut(low, high):
    return {"declared": DeclaredInit(written=True, distribution="truncated normal", std=0.02, low=low, high=high)}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-2, 2, ("pass", "truncation")),
        (-4, 4, ("pass", "truncation")),
        (-3, 100, ("pass", "truncation")),
        (-5, 5, ("warn", "idle")),
        (-100, 100, ("warn", "idle")),
    ],
)
def test_bounds_that_cut_nothing_are_found(weights, judge, low, high, expected):
    assert judge(truncation, weights(changes={"ffn.up.weight": cut(low, high)})) == {expected}


def test_the_worst_bound_is_told(weights):
    changes = {"ffn.up.weight": cut(-50, 50), "3.ffn.up.weight": cut(-100, 100)}
    (found,) = truncation(weights(changes=changes))
    assert (found.where, found.value, found.threshold) == ("blocks.0.ffn.up.weight", 100, 5)
    assert "12 tensors" in found.message


def test_other_draws_say_nothing(weights):
    assert truncation(weights()) == []
    normal = DeclaredInit(written=True, distribution="normal", std=0.02)
    assert truncation(weights(changes={"ffn.up.weight": {"declared": normal}})) == []
    assert truncation(weights(changes={"ffn.up.weight": cut(-100, 100)}, state="trained")) == []
