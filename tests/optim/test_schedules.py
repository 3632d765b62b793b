import itertools
import math

import pytest

from spikeless.config import find, names_in
from spikeless.errors import UserError
from spikeless.optim.schedules import largest_factor
from spikeless.optim.schedules.constant import Constant
from spikeless.optim.schedules.cosine import Cosine
from spikeless.optim.schedules.linear import Linear
from spikeless.optim.schedules.wsd import WSD

STEPS, WARMUP = 200, 20
ALL = pytest.mark.parametrize("schedule", [find("optim.schedules", name) for name in names_in("optim.schedules")])


def factors(schedule, steps: int = STEPS) -> list[float]:
    return [schedule.factor(step, steps) for step in range(steps)]


@ALL
def test_the_warm_up_is_linear_and_its_first_step_already_moves(schedule):
    got = factors(schedule(warmup_steps=WARMUP))[:WARMUP]
    assert got == pytest.approx([(step + 1) / WARMUP for step in range(WARMUP)])


@ALL
@pytest.mark.parametrize("steps", [1, 5, WARMUP - 1, WARMUP, WARMUP + 1, STEPS])
def test_the_highest_rate_that_is_reached(schedule, steps):
    made = schedule(warmup_steps=WARMUP)
    assert largest_factor(made, steps) == max(factors(made, steps))


@ALL
def test_after_the_warm_up_it_never_rises(schedule):
    got = factors(schedule(warmup_steps=WARMUP))[WARMUP - 1 :]
    assert got[0] == 1.0
    assert all(later <= earlier for earlier, later in itertools.pairwise(got))


@ALL
def test_there_are_no_jumps(schedule):
    """The steepest part is the warm-up, then wsd's decay: 0.9 over a fifth of the remaining steps."""
    got = factors(schedule(warmup_steps=WARMUP))
    jumps = [abs(b - a) for a, b in itertools.pairwise(got)]
    assert max(jumps) == pytest.approx(1 / WARMUP)
    assert max(jumps[WARMUP:]) <= 5.1 * 0.9 / (STEPS - WARMUP)


@ALL
@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_the_last_step_is_at_the_final_value(schedule, final):
    got = factors(schedule(warmup_steps=WARMUP, final=final))[-1]
    assert got == pytest.approx(1.0 if schedule is Constant else final)


@ALL
def test_no_warm_up_starts_at_the_peak(schedule):
    assert schedule(warmup_steps=0).factor(0, STEPS) == 1.0


@ALL
@pytest.mark.parametrize("steps", [1, 2, WARMUP - 1, WARMUP, WARMUP + 1])
@pytest.mark.parametrize("warmup", [0, WARMUP])
def test_short_runs_stay_between_nothing_and_the_peak(schedule, warmup, steps):
    assert all(0 < factor <= 1 for factor in factors(schedule(warmup_steps=warmup), steps))


def test_cosine_is_the_formula():
    got = Cosine(warmup_steps=0, final=0.2)
    for step in range(101):
        assert got.factor(step, 101) == pytest.approx(0.2 + 0.4 * (1 + math.cos(math.pi * step / 100)))


def test_linear_is_a_straight_line():
    assert factors(Linear(warmup_steps=0, final=0.5), 11) == pytest.approx([1 - 0.05 * step for step in range(11)])


def test_wsd_is_stable_then_decays_over_its_share():
    got = factors(WSD(warmup_steps=0, final=0.0, decay_share=0.25), 101)
    assert got[:76] == [1.0] * 76
    assert got[75:] == pytest.approx([1 - step / 25 for step in range(26)])


@pytest.mark.parametrize(
    ("schedule", "field", "value"),
    [(Cosine, "warmup_steps", -1), (Linear, "final", 1.5), (WSD, "decay_share", 0.0), (WSD, "warmup_steps", -1)],
)
def test_a_number_out_of_range_is_refused(schedule, field, value):
    with pytest.raises(UserError, match=rf"schedule\.{field}={value} is out of range"):
        schedule(**{field: value})
