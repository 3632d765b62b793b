"""A learning rate that was never reached is not passed off as one that was."""

import pytest

from spikeless.experiments.analysis.comparison import read_comparison
from spikeless.experiments.analysis.reached import unreached
from spikeless.experiments.analysis.remarks import warnings


@pytest.mark.parametrize(
    ("about", "share"),
    [
        ({"recipe": "gpt2_nano", "steps": 10, "command": "spikeless compare gpt2_nano --steps 10"}, "0.2"),
        (
            {"recipe": "gpt2_nano", "steps": 10, "settings": ("schedule.warmup_steps=40",), "command": "spikeless"},
            "0.25",
        ),
        ({"recipe": "gpt2_nano", "steps": 50, "command": "spikeless compare"}, None),
        ({"recipe": "gpt2_nano", "steps": 10, "settings": ("schedule.warmup_steps=10",), "command": "spikeless"}, None),
        (
            {"recipe": "gpt2_nano", "steps": 10, "settings": ("optim.gone=1", "a.part.of=2"), "command": "spikeless"},
            "0.2",
        ),
        ({"recipe": "gpt2_nano", "steps": 10}, None),  # from Python, where a run may be any
        ({"recipe": "their_own", "steps": 10, "command": "spikeless compare"}, None),
        ({"recipe": "gpt2_nano", "steps": 10, "reached": 1.0, "command": "spikeless compare"}, None),
        ({"recipe": "their_own", "steps": 10, "reached": 0.5}, "0.5"),
    ],
)
def test_a_comparison_says_that_no_rate_was_reached(about, share, make_comparison, tmp_path):
    comparison = make_comparison({"baseline": {0.1: (4.0,), 0.2: (3.9,)}}, **about)
    comparison.write(tmp_path / "comparison.json")
    said = unreached(read_comparison(tmp_path / "comparison.json").about)
    assert (said is None) is (share is None)
    if share:
        assert f"the highest rate was {share} of it" in said and warnings(comparison)[0] == said
