"""A comparison is fair, can be run again, and leaves nothing out."""

import json
import math
import sys
import types
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file

from spikeless.config import replace_at
from spikeless.errors import SpikelessWarning, UserError
from spikeless.evaluation import LambadaExample
from spikeless.experiments.analysis.comparison import read_comparison
from spikeless.experiments.compare import compare
from spikeless.experiments.grid import plan
from spikeless.training.checkpoints import Checkpoints

ARMS = ["baseline", "embed_detach", "scaled_embed", "mlra"]


@pytest.fixture(scope="module")
def compared(small_run, tmp_path_factory):
    """The folder and the comparison of four arms."""
    folder = tmp_path_factory.mktemp("compared")
    return folder, compare(small_run, "; ".join(ARMS), folder, jobs=1, command="made so")


def contents(folder):
    """Time and bytes of everything in a folder but the locks, which hold nothing."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def strict(path):
    """A file of strict JSON: no NaN."""

    def refuse(constant):
        raise AssertionError(f"{path} has {constant}")

    return json.loads(path.read_text(), parse_constant=refuse)


# --- fair ---


def test_every_arm_is_in_its_folder_and_in_the_files(compared):
    folder, comparison = compared
    assert [each.run for each in comparison.outcomes] == [f"{arm}-lr0.001-2x32-seed0" for arm in ARMS]
    status = [json.loads((folder / each.run / "status.json").read_text()) for each in comparison.outcomes]
    assert [each["state"] for each in status] == ["finished"] * 4
    assert read_comparison(folder / "comparison.json") == comparison
    assert comparison.about.command == "made so"
    report = (folder / "report.html").read_text()
    assert all(arm in report for arm in ARMS) and "made so" in report


def test_a_run_is_measured(compared):
    first = compared[1].outcomes[0]
    assert first.steps == 3 and first.failed is False and first.initial_val_loss > first.final_val_loss > 0
    assert first.flops_per_token > first.parameters > 10_000
    assert {"update_norm", "tev/mean", "hidden_variance/002", "gradient_variance/exact/all"} <= first.curves.keys()
    assert first.curves["update_norm"].steps == (1, 2, 3) and first.max_update_norm > 0
    assert set(first.scores) == {"perplexity", "bits_per_byte"}
    assert compared[1].about.seconds > 0 and first.seconds > 0


def test_arms_that_start_as_the_same_function_have_the_same_first_loss(compared, rows):
    """Embed Detach changes the backward pass only, so its first loss proves that batch and draws are shared."""
    folder, comparison = compared
    first = {each.arm: rows(folder / each.run)[1]["loss"] for each in comparison.outcomes}
    assert first["embed_detach"] == first["baseline"]
    assert first["scaled_embed"] != first["baseline"]
    last = {each.arm: rows(folder / each.run)[3]["loss"] for each in comparison.outcomes}
    assert last["embed_detach"] != last["baseline"]


def test_arms_share_the_draws_of_the_parameters_that_they_share(small_run, build, tmp_path):
    arms = plan(replace_at(small_run, {"model.vocab_size": 257}), "baseline; mlra", tmp_path / "nowhere")
    baseline, mlra = (dict(build(arm.run, arm.run.seed).named_parameters()) for arm in arms)
    assert not (tmp_path / "nowhere").exists(), "a plan writes nothing"
    shared = baseline.keys() & mlra.keys()
    assert len(shared) > 10
    assert all(torch.equal(baseline[name], mlra[name]) for name in shared)


def test_arms_see_the_same_data_and_schedule(compared, rows):
    folders = [compared[0] / each.run for each in compared[1].outcomes]
    hashes = {json.loads((folder / "run.json").read_text())["data_hash"] for folder in folders}
    assert len(hashes) == 1
    for key in ("lr", "tokens", "epoch"):
        assert len({tuple(row.get(key) for row in rows(folder)) for folder in folders}) == 1


def test_one_precision_for_all_arms(small_run, tmp_path, monkeypatch):
    """Measured once, on the first arm; a clock must not decide arm by arm, nor when the comparison is run again."""
    answers = iter(["bf16", "fp32", "fp32", "fp32"])
    monkeypatch.setattr(
        "spikeless.experiments.compare.choose_precision", lambda *_: (next(answers), {"fp32": 1.0, "bf16": 0.5})
    )
    run = replace_at(small_run, {"precision": "auto", "steps": 1})
    compare(run, "baseline; embed_detach", tmp_path, jobs=1)
    again = compare(run, "embed_detach; mlra", tmp_path, jobs=1)
    assert again.about.precision == "bf16"
    configs = [json.loads(path.read_text())["config"]["precision"] for path in tmp_path.glob("*/run.json")]
    assert configs == ["bf16"] * 3
    with pytest.raises(UserError, match="holds a run with another configuration"):
        compare(replace_at(run, {"precision": "fp32"}), "embed_detach; mlra", tmp_path, jobs=1)


# --- the grid ---


def test_axes_and_seeds_make_a_run_of_each(small_run, tmp_path, rows):
    run = replace_at(small_run, {"steps": 1, "seed": 5})
    axes = {"lrs": [1e-3, 1e-2], "depths": [1, 2], "widths": [16], "seeds": 2}
    comparison = compare(run, "baseline; scaled_embed", tmp_path, **axes, jobs=1)
    assert len(comparison.outcomes) == 2 * 2 * 2 * 2 and all(each.ended for each in comparison.outcomes)
    assert (comparison.lrs, comparison.shapes) == ([1e-3, 1e-2], [(1, 16), (2, 16)])
    for each in comparison.outcomes:
        config = json.loads((tmp_path / each.run / "run.json").read_text())["config"]
        assert (each.lr, each.seed) == (config["optim"]["lr"], config["seed"])
        assert (each.depth, each.width) == (config["model"]["num_layers"], config["model"]["width"])
    first, second = (comparison.select(arm="baseline", lr=1e-3, depth=1, seed=seed)[0] for seed in (5, 6))
    assert rows(tmp_path / first.run)[1]["loss"] != rows(tmp_path / second.run)[1]["loss"]


def test_more_seeds_are_added_to_a_finished_grid_only(small_run, tmp_path, watching, sigterm):
    run = replace_at(small_run, {"steps": 1})

    def again(watch=None, **options):
        return [each.seed for each in compare(run, "baseline", tmp_path, jobs=1, watch=watch, **options).outcomes]

    stopped = watching(lambda event: event.outcome and sigterm())
    assert again(stopped, seeds=2) == [0, 1]
    assert len(list(tmp_path.glob("*/run.json"))) == 1
    assert again(add_seeds=1) == [0, 1], "it was not finished"
    before = contents(tmp_path / "baseline-lr0.001-2x32-seed0")
    assert again(add_seeds=1) == [0, 1, 2]
    assert again() == again(seeds=2) == [0, 1, 2], "the plain command keeps what was added"
    assert again(seeds=4) == [0, 1, 2, 3]
    assert before.items() <= contents(tmp_path).items()


# --- again ---


def test_finished_runs_are_kept_and_new_arms_added(compared, small_run, watching, timeless):
    folder, comparison = compared
    before = {path: each for path, each in contents(folder).items() if path.parent != folder}
    assert len([path for path in before if path.suffix == ".safetensors"]) == 2 * 4
    watch = watching()
    again = compare(small_run, "; ".join([*ARMS, "small_init"]), folder, jobs=1, watch=watch)
    assert before.items() <= contents(folder).items()
    assert again.outcomes[:4] == comparison.outcomes
    assert again.outcomes[4].state == "finished"
    assert watch.kept == [each.run for each in comparison.outcomes] and watch.todo == [again.outcomes[4].run]
    assert {event.cell.arm for event in watch.events} == {"small_init"}


@pytest.mark.parametrize("at", ["row", "outcome"])
def test_an_interrupted_grid_is_completed_by_the_same_call(at, small_run, tmp_path, watching, sigterm, rows, timeless):
    """Stopped in the second run, or between the second and the third."""

    def stop(event):
        if event.cell.arm == "embed_detach" and getattr(event, at) is not None:
            sigterm()

    def go(folder, watch=None):
        return compare(small_run, "baseline; embed_detach; mlra", tmp_path / folder, jobs=1, watch=watch)

    watch = watching(stop)
    stopped = go("stopped", watch)
    assert watch.stopped_by == "SIGTERM"
    states = ["finished", "interrupted" if at == "row" else "finished", "planned"]
    assert [each.state for each in stopped.outcomes] == states
    assert read_comparison(tmp_path / "stopped" / "comparison.json") == stopped
    assert not any(each.scores for each in stopped.outcomes)
    assert timeless(go("stopped").outcomes) == timeless(go("whole").outcomes)
    for name in ("embed_detach", "mlra"):
        one, other = (rows(tmp_path / folder / f"{name}-lr0.001-2x32-seed0") for folder in ("stopped", "whole"))
        assert [row["loss"] for row in one[1:]] == [row["loss"] for row in other[1:]]


def test_a_grid_goes_on_with_its_processes_and_threads(small_run, tmp_path, watching, monkeypatch):
    """With the cores of another machine, and fewer runs left than processes; another number of processes is new."""
    seen, watch = [], watching()
    monkeypatch.setattr(watch, "begin", lambda cells, kept, pace: seen.append((pace.jobs, pace.threads)))
    for cores, arms, jobs in ((1, 1, 4), (16, 2, None), (16, 3, 4), (16, 4, 2)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        monkeypatch.setattr("spikeless.experiments.pace._pass_seconds", lambda run, threads: 1.0)
        monkeypatch.setattr("torch.set_num_threads", lambda _: None)
        about = compare(small_run, "; ".join(ARMS[:arms]), tmp_path, jobs=jobs, watch=watch).about
    assert seen == [(4, 1), (4, 1), (4, 1), (2, 8)]
    assert about.jobs == 2


@dataclass(frozen=True, kw_only=True)
class Explode:
    """A technique that cannot end well."""

    def __call__(self, run):
        return replace_at(run, {"optim.lr": 1e10, "gradients": (), "schedule.warmup_steps": 0})


@pytest.fixture
def explosive(monkeypatch):
    module = types.ModuleType("explosive_lab")
    module.Explode = Explode
    monkeypatch.setitem(sys.modules, "explosive_lab", module)
    return "explosive_lab:Explode"


def test_an_unhealthy_arm_stops_no_other_and_is_left_in(small_run, tmp_path, explosive, watching):
    watch = watching()
    comparison = compare(small_run, f"{explosive}; baseline", tmp_path, jobs=1, watch=watch)
    good, bad = comparison.outcomes
    assert good.arm == "baseline", "it comes first, wherever it was named"
    assert (bad.state, good.state) == ("unhealthy", "finished")
    assert bad.failed and bad.final_val_loss == math.inf and "non-finite" in bad.message
    assert [event.outcome.state for event in watch.events if event.outcome] == ["unhealthy", "finished"]
    first = strict(tmp_path / "comparison.json")["runs"][1]
    assert (first["state"], first["final_val_loss"]) == ("unhealthy", "Infinity")
    assert "NaN" in first["curves"]["loss"]["values"]
    assert "Explode" in (tmp_path / "report.html").read_text()
    folder = tmp_path / bad.run
    steps = Checkpoints(folder).steps()
    assert steps, "the last good checkpoint is kept"
    for step in steps:
        tensors = load_file(Checkpoints(folder).path(step) / "model.safetensors")
        assert all(tensor.isfinite().all() for tensor in tensors.values())


# --- scores ---


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


def test_final_checkpoints_at_the_best_rate_are_scored(small_run, tmp_path, monkeypatch):
    """Also those with a part of the user's own, which a stored configuration alone could not bring back."""
    (tmp_path / "score_lab.py").write_text(LAB)
    monkeypatch.syspath_prepend(tmp_path)
    passages = [LambadaExample(context="the cat sat on the", target=" mat"), LambadaExample(context="a", target=" b")]
    arms, folder = "baseline; score_lab:Own", tmp_path / "grid"

    def go(lambada):
        return compare(small_run, arms, folder, lrs=[1e-3, 1e-2], seeds=2, jobs=1, lambada=lambada)

    comparison = go(passages)
    for arm in comparison.arms:
        losses = {lr: sorted(each.final_loss for each in comparison.select(arm=arm, lr=lr)) for lr in (1e-3, 1e-2)}
        best = min(losses, key=lambda lr: sum(losses[lr]))  # of two seeds, the mean is the median
        for each in comparison.select(arm=arm):
            assert bool(each.scores) == (each.lr == best)
            if each.scores:
                assert each.scores.keys() >= {"perplexity", "bits_per_byte", "lambada_perplexity"}
                assert 0 <= each.scores["lambada_accuracy"] <= 1 < each.scores["perplexity"] < 300
    monkeypatch.setattr("spikeless.experiments.scoring.load_subject", None)  # what is known is not computed again
    assert go(passages).outcomes == comparison.outcomes
    assert go([]).outcomes == comparison.outcomes  # what was asked for once is not dropped
    with pytest.raises(TypeError):
        go(passages[:1])


# --- refused ---


@pytest.mark.parametrize(
    ("arms", "options", "message"),
    [
        ("", {}, "write arms separated"),
        (" ; ", {}, "write arms separated"),
        ("baseline;;mlra", {}, "write arms separated"),
        ("baseline; baseline", {}, "names baseline more than once"),
        ("mlra+scaled_embed; scaled_embed+mlra", {}, "more than once"),
        ("baseline; mlar", {}, "did you mean 'mlra'"),
        ("scaled_embed+embed_norm", {}, "exclude each other"),
        ("mlra(rank=4000)", {}, "use 1 to 32"),
        ("baseline; explosive_lab:Explode", {"lrs": [1e-3]}, "--lrs and explosive_lab:Explode both set optim.lr"),
        ("baseline", {"lrs": [1e-3, 1e-3]}, "--lrs names 0.001 more than once"),
        ("baseline", {"lrs": [math.nan]}, "--lrs: nan is out of range"),
        ("baseline", {"depths": [0]}, "--depths: 0 is out of range"),
        ("baseline", {"widths": [30]}, "model.width=30 is not divisible by model.num_heads=4"),
        ("mlra(rank=17)", {"widths": [64, 16]}, "use 1 to 16"),
        ("baseline", {"lrs": [1e-3], "assignments": ["optim.lr=0.1"]}, "--set optim.lr=0.1 and --lrs both set"),
        ("baseline", {"lrs": [1e-3], "assignments": ["optim=adamw(lr=0.1)"]}, "--lrs both set optim.lr"),
        ("baseline", {"depths": [1], "assignments": ["model.num_layers=2"]}, "and --depths both set model.num_layers"),
        ("baseline", {"widths": [32], "assignments": [" model.width = 32"]}, "and --widths both set model.width"),
        ("scaled_embed", {"assignments": ["model.embedding.multiplier=2"]}, "both set model.embedding.multiplier"),
        ("baseline", {"seeds": 0}, "use a whole number from 1"),
        ("baseline", {"seeds": -1}, "use a whole number from 1"),
        ("baseline", {"add_seeds": -1}, "use a whole number from 0"),
        ("baseline", {"jobs": 0}, "use a whole number from 1"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_written(arms, options, message, small_run, tmp_path, explosive):
    with pytest.raises(UserError, match=message):
        compare(small_run, arms, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_another_configuration_in_the_folder_is_refused_and_nothing_lost(compared, small_run):
    folder, _ = compared
    before = contents(folder)
    for changes in ({"steps": 4}, {"optim.weight_decay": 0.2}, {"data.batch_size": 8}):
        with pytest.raises(
            UserError, match=r"(?s)mlra-lr0.001-2x32-seed0 holds a run with another configuration:.* -> .* or choose"
        ):
            compare(replace_at(small_run, changes), "xavier_init; mlra", folder, jobs=1)
    assert contents(folder) == before


def test_a_comparison_says_what_was_skipped_of_its_data(small_run, tmp_path):
    (tmp_path / "a.jsonl").write_text(
        "".join(
            json.dumps({"text": None if number % 2 else f"note {number}: the cat sat " * 8}) + "\n"
            for number in range(40)
        )
    )
    run = replace_at(small_run, {"data.spec": f"jsonl:{tmp_path}/a.jsonl", "steps": 1})
    with pytest.warns(SpikelessWarning, match=r"20 of 40 documents \(50.0 %\) were skipped or repaired: null 20"):
        compared = compare(run, "baseline", tmp_path / "out", jobs=1)
    assert any("20 of 40 documents" in each for each in compared.about.remarks)
    assert "20 of 40 documents" in (tmp_path / "out" / "report.html").read_text()
