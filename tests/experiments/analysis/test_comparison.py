"""A comparison comes back from its file as it was, or not at all."""

import json
import math

import pytest

from spikeless.errors import UserError
from spikeless.experiments.analysis.comparison import About, Comparison, read_comparison
from spikeless.experiments.analysis.outcome import Curve, Outcome

ABOUT = About(
    recipe="r",
    command="spikeless compare …",
    data="text:ü*.txt",
    tokenizer="bytes",
    vocab_size=257,
    steps=3,
    tokens_per_step=128,
    precision="fp32",
    settings=("optim.weight_decay=0.2",),
    changes={"baseline": (), "mlra": ("model.attention.projection: Dense() -> LowRank()",)},
    reading_seconds={"tev": 0.25},
    seconds=1.5,
    environment={"torch": "2.9", "gpu": None},
)


def outcome(arm="baseline", lr=0.01, depth=2, width=8, seed=0, **fields):
    return Outcome(arm=arm, lr=lr, depth=depth, width=width, seed=seed, run=f"{arm}-{lr}-{depth}-{seed}", **fields)


@pytest.fixture
def comparison():
    curve = Curve(steps=(1, 2), values=(4.0, math.inf))
    runs = [
        outcome(state="finished", final_val_loss=3.0),
        outcome("mlra", 0.1, 4, state="unhealthy", final_val_loss=math.inf, curves={"loss": curve}),
        outcome("mlra", 0.001, 4, 4, seed=1),
    ]
    return Comparison(about=ABOUT, outcomes=tuple(runs))


def test_it_comes_back_and_is_strict_json_with_a_run_a_line(comparison, tmp_path):
    path = tmp_path / "comparison.json"
    comparison.write(path, {"tables": {"x": [math.nan]}})
    assert read_comparison(path) == comparison
    text = path.read_text(encoding="utf-8")
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert data["tables"] == {"x": ["NaN"]}
    assert data["runs"][1]["final_val_loss"] == "Infinity"
    lines = [line.rstrip(",") for line in text.splitlines() if line.startswith('{"')]
    assert [json.loads(line) for line in lines] == data["runs"]


def test_a_comparison_without_runs_comes_back(tmp_path):
    empty = Comparison(about=ABOUT, outcomes=())
    empty.write(tmp_path / "comparison.json")
    assert read_comparison(tmp_path / "comparison.json") == empty
    assert (empty.arms, empty.shapes, empty.lrs) == ([], [], [])


def test_its_axes_and_selections(comparison):
    assert comparison.arms == ["baseline", "mlra"]
    assert comparison.shapes == [(2, 8), (4, 4), (4, 8)]
    assert comparison.lrs == [0.001, 0.01, 0.1]
    assert comparison.select(arm="mlra", lr=0.1) == [comparison.outcomes[1]]
    assert comparison.select(depth=4) == list(comparison.outcomes[1:])
    assert comparison.select(arm="mlra", lr=0.01) == []
    assert comparison.select() == list(comparison.outcomes)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data.pop("runs"), "it lacks 'runs'"),
        (lambda data: data.pop("format"), "it lacks 'format'"),
        (lambda data: data.update(format=2), "has format 2; this version reads format 1"),
        (lambda data: data.update(about=[]), "'about' does not describe a comparison"),
        (lambda data: data.update(about="text"), "'about' does not describe a comparison"),
        (lambda data: data["about"].pop("recipe"), "'about' does not describe a comparison"),
        (lambda data: data["about"].update(steps="many"), "'about' does not describe a comparison"),
        (lambda data: data["about"].update(precision=32), "'about' does not describe a comparison"),
        (lambda data: data["about"].update(unknown=1), "'about' does not describe a comparison"),
        (lambda data: data.update(runs={}), "'runs' is not a list"),
        (lambda data: data["runs"].append(1), "this is not the outcome of a run: 1"),
        (lambda data: data["runs"][0].update(lr="high"), "this is not the outcome of a run"),
        (lambda data: data["runs"][0].pop("arm"), "this is not the outcome of a run"),
    ],
)
def test_a_damaged_file_is_refused(damage, message, comparison, tmp_path):
    path = tmp_path / "comparison.json"
    comparison.write(path)
    data = json.loads(path.read_text())
    damage(data)
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=message) as caught:
        read_comparison(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{", "null"])
def test_what_is_no_comparison_is_refused(content, tmp_path):
    (tmp_path / "comparison.json").write_text(content)
    with pytest.raises(UserError, match=r"comparison\.json"):
        read_comparison(tmp_path / "comparison.json")
    with pytest.raises(UserError, match="cannot read"):
        read_comparison(tmp_path / "missing.json")
