"""Grids add up in one folder: what lies there is of the comparison, or of another study and refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from spikeless.config import paths, replace_at, to_dict
from spikeless.errors import SpikelessWarning, UserError
from spikeless.experiments.analysis.comparison import read_comparison
from spikeless.experiments.analysis.remarks import warnings
from spikeless.experiments.analysis.summary import baseline_of
from spikeless.experiments.compare import compare
from spikeless.experiments.folder import Study, named_modules
from spikeless.recipes import adapt


@pytest.fixture(scope="module")
def brief(small_run):
    """One step; enough for a run that has ended."""
    return replace_at(small_run, {"steps": 1})


@pytest.fixture(scope="module")
def _begun(brief, tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun") / "grid"
    compare(brief, "mlra", folder, lrs=[1e-2], jobs=1, command="first")
    compare(brief, "mlra", folder, lrs=[1e-3], jobs=1, command="second")
    return folder


@pytest.fixture
def grid(_begun, tmp_path):
    """A folder of one arm at two rates, asked for one after the other."""
    return shutil.copytree(_begun, tmp_path / "grid")


def names(comparison):
    return [each.run for each in comparison.outcomes]


def test_rates_arms_shapes_and_seeds_add_up(brief, grid):
    first = read_comparison(grid / "comparison.json")
    assert names(first) == ["mlra-lr0.001-2x32-seed0", "mlra-lr0.01-2x32-seed0"]
    assert first.about.command == "first\nsecond"
    more = [
        ("baseline", {"lrs": [1e-2]}),
        ("mlra(rank=2)", {"lrs": [1e-2], "seeds": 2}),
        ("scaled_embed+mlra(rank=2)", {"depths": [1], "widths": [16]}),
    ]
    for arms, axes in more:
        comparison = compare(brief, arms, grid, **axes, jobs=1)
    assert comparison.arms == ["baseline", "mlra", "mlra(rank=2)", "mlra(rank=2)+scaled_embed"]
    assert baseline_of(comparison) == "baseline"
    assert len(comparison.outcomes) == 2 + 1 + 2 + 1 * 2, "a grid of two seeds keeps them"
    assert all(each.state == "finished" and each.flops_per_token for each in comparison.outcomes)
    assert {each.run: each for each in first.outcomes}.items() <= {
        each.run: each for each in comparison.outcomes
    }.items()
    assert set(comparison.about.changes) == set(comparison.arms) and not comparison.about.changes["baseline"]
    assert read_comparison(grid / "comparison.json") == comparison
    report = (grid / "report.html").read_text()
    assert all(arm in report for arm in comparison.arms)


def test_what_lies_there_needs_no_earlier_comparison(brief, grid, watching):
    """As after `kill -9`; scores at the best rate are made up for, whoever trained the run."""
    (grid / "comparison.json").unlink()
    for path in grid.glob("*/scores.json"):
        path.unlink()
    watch = watching()
    comparison = compare(brief, "scaled_embed", grid, lrs=[1e-3], jobs=1, watch=watch)
    assert watch.todo == ["scaled_embed-lr0.001-2x32-seed0"]
    assert comparison.arms == ["scaled_embed", "mlra"] and len(comparison.outcomes) == 3
    best = min(comparison.select(arm="mlra"), key=lambda each: each.final_loss)
    assert best.scores and best.flops_per_token and set(comparison.about.changes) == {"mlra", "scaled_embed"}


def test_a_run_that_has_not_ended_is_listed_as_that(brief, grid):
    status = grid / "mlra-lr0.01-2x32-seed0" / "status.json"
    status.write_text(json.dumps(json.loads(status.read_text()) | {"state": "interrupted", "message": "SIGTERM"}))
    comparison = compare(brief, "baseline", grid, lrs=[1e-2], jobs=1)
    [unfinished] = comparison.select(arm="mlra", lr=1e-2)
    assert unfinished.state == "interrupted"
    assert any("1 run of 3 not ended (1 interrupted)" in each for each in warnings(comparison))
    assert "interrupted at step 1: SIGTERM" in (grid / "report.html").read_text()


def test_rows_whose_folders_are_gone_are_kept(brief, grid):
    before = read_comparison(grid / "comparison.json")
    shutil.rmtree(grid / "mlra-lr0.01-2x32-seed0")
    comparison = compare(brief, "baseline", grid, lrs=[1e-2], jobs=1)
    assert comparison.select(arm="mlra") == before.select(arm="mlra")
    assert any("1 run whose folder is gone" in each for each in warnings(comparison))
    shutil.rmtree(grid / "mlra-lr0.001-2x32-seed0")
    shutil.rmtree(grid / "baseline-lr0.01-2x32-seed0")
    for changes, said in (
        ({"steps": 2}, "steps: 1 -> 2"),
        ({"optim.weight_decay": 0.5}, "optim.weight_decay: 0.1 -> 0.5"),
    ):
        with pytest.raises(UserError, match=rf"(?s)of another study .*{said}"):
            compare(replace_at(brief, changes), "mlra", grid, lrs=[1e-4], jobs=1)


def test_what_crashed_in_an_earlier_call_stays_so(brief, grid):
    comparison = read_comparison(grid / "comparison.json")
    crashed = dataclasses.replace(comparison.outcomes[0], state="crashed", message="its process died (SIGKILL)")
    dataclasses.replace(comparison, outcomes=(crashed, comparison.outcomes[1])).write(grid / "comparison.json")
    status = grid / crashed.run / "status.json"
    status.write_text(json.dumps({"state": "running", "step": 0, "message": ""}))
    again = compare(brief, "baseline", grid, lrs=[1e-2], jobs=1)
    assert again.select(run=crashed.run) == [crashed]
    retried = compare(brief, "mlra", grid, lrs=[1e-3], jobs=1)
    assert retried.select(run=crashed.run)[0].state == "finished"


# --- another study ---


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 2}, "steps: 1 -> 2"),
        ({"data.batch_size": 8}, "data.batch_size: 4 -> 8"),
        ({"optim.weight_decay": 0.5}, "optim.weight_decay: 0.1 -> 0.5"),
        ({"model.num_heads": 2}, "model.num_heads: 4 -> 2"),
        ({"recipe": "deep_nano"}, "recipe: 'gpt2_nano' -> 'deep_nano'"),
        ({"schedule.final": 0.5}, "schedule.final: 0.1 -> 0.5"),
    ],
)
def test_runs_of_another_study_are_refused_and_nothing_is_lost(changes, said, brief, grid, tmp_path):
    before = {path: path.read_bytes() for path in grid.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=rf"(?s)mlra-lr0.0.* holds a run of another study .*  {said}\n.* --out"):
        compare(replace_at(brief, changes), "baseline", grid, lrs=[0.1], jobs=1)
    assert {path: path.read_bytes() for path in grid.rglob("*") if path.is_file()} == before


def test_other_data_are_another_study(brief, grid, tmp_path):
    (tmp_path / "other.txt").write_text("another text, with other words in it. " * 40)
    with pytest.raises(UserError, match=r"(?s)another study .*data"):
        compare(replace_at(brief, {"data.spec": f"text:{tmp_path}/other.txt"}), "baseline", grid, jobs=1)


def test_the_same_data_elsewhere_are_the_same_study(brief, grid, tmp_path):
    files = sorted(Path(brief.data.spec.removeprefix("text:")).parent.glob("*.txt"))
    for file in files:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    moved = replace_at(brief, {"data.spec": f"text:{tmp_path}/*.txt"})
    comparison = compare(moved, "baseline; mlra", grid, lrs=[1e-2], jobs=1)
    assert comparison.arms == ["baseline", "mlra"] and len(comparison.outcomes) == 3
    assert list(comparison.about.sources) == [moved.data.spec]
    assert "train: 9 documents" in comparison.about.sources[moved.data.spec]
    assert "train: 9 documents" in (grid / "report.html").read_text()


def test_a_run_that_is_no_cell_is_named_and_left_out(brief, grid):
    shutil.copytree(grid / "mlra-lr0.01-2x32-seed0", grid / "mine")
    with pytest.warns(SpikelessWarning, match=r"mine is left out: it holds a run of its own"):
        comparison = compare(brief, "mlra", grid, lrs=[1e-3], jobs=1)
    assert len(comparison.outcomes) == 2
    assert any("mine is left out" in each for each in warnings(comparison))


def test_the_folder_of_a_single_run_is_refused(brief, grid):
    with pytest.raises(UserError, match="is the folder of a single run"):
        compare(brief, "baseline", grid / "mlra-lr0.01-2x32-seed0", jobs=1)


LAB = """
from dataclasses import dataclass
import torch
from spikeless.config import replace_at

@dataclass(frozen=True, kw_only=True)
class Plain:
    def build(self, d_in, d_out, bias):
        return torch.nn.Linear(d_in, d_out, bias)

@dataclass(frozen=True, kw_only=True)
class Own:
    def __call__(self, run):
        return replace_at(run, {"model.attention.projection": Plain()})
"""


def test_an_arm_from_outside_stays_in_though_its_code_is_not_imported(brief, tmp_path, monkeypatch):
    (tmp_path / "folder_lab.py").write_text(LAB)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        patch.delitem(__import__("sys").modules, "folder_lab", raising=False)
        first = compare(brief, "folder_lab:Own", tmp_path / "grid", jobs=1)
    monkeypatch.delitem(__import__("sys").modules, "folder_lab")
    again = compare(brief, "baseline", tmp_path / "grid", jobs=1)
    assert again.arms == ["baseline", "folder_lab:Own"]
    assert again.select(arm="folder_lab:Own") == list(first.outcomes)
    with pytest.raises(UserError, match=r"(?s)of another study .*checkpoint.every: 1 -> 7"):
        compare(replace_at(brief, {"checkpoint.every": 7}), "baseline", tmp_path / "grid", lrs=[0.5], jobs=1)


# --- what a study is ---


@pytest.fixture
def study(brief):
    return Study(base=replace_at(brief, {"model.vocab_size": 300}), data_hash="0" * 64, trusted=frozenset())


def test_any_field_but_those_of_the_axes_makes_another_study(study):
    """Every leaf of the whole run, one at a time."""
    free = {"seed", "optim.lr", "model.num_layers", "model.width", "techniques", "data.spec", "data.tokenizer"}
    seen = set()
    for path in paths(study.base):
        value = study.base
        for name in path.split("."):
            value = getattr(value, name, None)
        other = _another(value)
        if other is None:
            continue
        try:
            changed = replace_at(study.base, {path: other})
        except (UserError, ValueError, TypeError):
            continue
        assert bool(study.differences(changed)) is (path not in free), path
        seen.add(path)
    assert free - {"techniques"} <= seen and len(seen) > 30
    assert {
        "steps",
        "data.batch_size",
        "metrics.every",
        "precision",
        "model.tied",
        "recipe",
        "schedule.warmup_steps",
    } <= seen


def _another(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 2 + 1 if isinstance(value, int) else value / 2 + 0.001
    return "bf16" if value in ("auto", "fp32") else f"{value}x" if isinstance(value, str) else None


def test_what_an_arm_writes_is_its_own(study):
    for arm in ("mlra", "mlra(rank=2)", "xavier_init", "embed_std_one"):
        treated = adapt(study.base, [arm])
        assert not study.differences(treated) and study.read(to_dict(treated)) == (treated, True)
        [change] = study.differences(replace_at(treated, {"data.batch_size": 8}))
        assert change.path == "data.batch_size"
    with_rank = replace_at(adapt(study.base, ["mlra"]), {"model.attention.projection.rank": 2})
    assert not study.differences(with_rank), "a setting of the part that the arm brings"
    assert [
        each.path
        for each in study.differences(
            replace_at(study.base, {"model.attention.projection": with_rank.model.attention.projection})
        )
    ] == ["model.attention.projection"]
    assert named_modules(with_rank) == frozenset()
