"""Settings that cannot take effect are said, and no others."""

from dataclasses import dataclass

import pytest

from spikeless import recipes
from spikeless.config import names_in, replace_at
from spikeless.errors import SpikelessWarning
from spikeless.optim.schedules.constant import Constant
from spikeless.optim.schedules.cosine import Cosine
from spikeless.optim.schedules.wsd import WSD
from spikeless.training.idle_settings import idle_settings
from spikeless.training.loop import train


@dataclass(frozen=True, kw_only=True)
class InverseRoot:
    """Peaks below its peak, by design."""

    def factor(self, step: int, steps: int) -> float:
        return min((step + 1) / 4, (4 / (step + 1)) ** 0.5) * 0.9


@pytest.mark.parametrize("name", names_in("recipes"))
def test_recipes_as_they_are_have_none(name):
    assert idle_settings(getattr(recipes, name)()) == []


@pytest.mark.parametrize("schedule", [Cosine(warmup_steps=50), Constant(warmup_steps=50), WSD(warmup_steps=50)])
def test_a_peak_that_is_never_reached(tiny_run, schedule):
    run = replace_at(tiny_run(), {"schedule": schedule, "optim.lr": 1e-3})
    (line,) = idle_settings(replace_at(run, {"steps": 20}))
    assert line == (
        "optim.lr=0.001 is never reached: the learning rate still rises (schedule.warmup_steps=50) when the run of 20 "
        "steps ends, at 0.0004"
    )
    assert idle_settings(replace_at(run, {"steps": 49})) and not idle_settings(replace_at(run, {"steps": 50}))


def test_a_schedule_that_peaks_lower_is_meant_so(tiny_run):
    assert idle_settings(replace_at(tiny_run(), {"schedule": InverseRoot()})) == []
    assert idle_settings(replace_at(tiny_run(), {"schedule": InverseRoot(), "steps": 2})) != []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schedule": Constant(final=0.5, warmup_steps=0)}, "schedule.final=0.5 has no effect"),
        ({"schedule": Constant(warmup_steps=0)}, None),
        ({"checkpoint.keep_best": 2, "evaluation.every": 0}, "checkpoint.keep_best=2 has no effect"),
        ({"checkpoint.keep_best": 2, "evaluation.every": 3, "checkpoint.every": 7}, "checkpoint.keep_best=2"),
        ({"checkpoint.keep_best": 2, "evaluation.every": 3, "checkpoint.every": 6}, None),
        ({"checkpoint.keep_best": 0, "evaluation.every": 0}, None),
        (
            {"metrics.every": 0, "metrics.diagnostics": ("tev", "update_norm")},
            "metrics.diagnostics=tev,update_norm has",
        ),
        ({"metrics.every": 0}, None),
        ({"data.spec": "shards:a", "data.validation_fraction": 0.5}, "data.validation_fraction=0.5 has no effect"),
        ({"data.spec": "text:a", "data.validation_fraction": 0.5}, None),
    ],
)
def test_what_else_has_no_effect(tiny_run, changes, said):
    lines = idle_settings(replace_at(tiny_run(), {"schedule.warmup_steps": 1} | changes))
    assert len(lines) == (said is not None)
    assert said is None or lines[0].startswith(said)


def test_a_run_says_it(tmp_path, quick_run):
    with pytest.warns(SpikelessWarning, match=r"optim\.lr=0\.001 is never reached: .* 1 step ends, at 2e-05"):
        train(replace_at(quick_run, {"steps": 1}), tmp_path)
