"""A comparison is fair, can be run again, and leaves nothing out."""

import json
import sys
import types
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file

from spikeless.config import replace_at
from spikeless.errors import UserError
from spikeless.experiments.compare import compare, parse_arms, plan
from spikeless.training.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def small_run(tiny_run, tmp_path_factory):
    """Three steps on a few sentences, every step kept."""
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(10):
        (folder / f"{number}.txt").write_text(
            f"note {number}: the cat sat on the mat, and the dog lay on the rug. " * 8
        )
    changes = {"data.spec": f"text:{folder}/*.txt", "data.tokenizer": "bytes", "model.vocab_size": None, "steps": 3}
    changes |= {"data.batch_size": 4, "evaluation.tokens": 64, "precision": "fp32", "schedule.warmup_steps": 1}
    changes |= {"checkpoint.every": 1, "checkpoint.keep_last": 9, "metrics.loggers": ()}
    return replace_at(tiny_run("gpt2"), changes)


@pytest.fixture(scope="module")
def compared(small_run, tmp_path_factory):
    """The folder and the records of four arms."""
    folder = tmp_path_factory.mktemp("compared")
    return folder, compare(small_run, "baseline; embed_detach; scaled_embed; mlra", folder, command="made so")


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_arm_is_in_its_folder_and_in_the_report(compared):
    folder, records = compared
    assert [record.label for record in records] == ["baseline", "embed_detach", "scaled_embed", "mlra"]
    assert [record.folder for record in records] == [folder / f"{record.label}-seed0" for record in records]
    assert all(record.status["state"] == "finished" for record in records)
    report = (folder / "report.html").read_text()
    assert all(record.label in report for record in records)
    assert "made so" in report


def test_arms_that_start_as_the_same_function_have_the_same_first_loss(compared):
    """Embed Detach changes the backward pass only, so its first loss proves that batch and draws are shared."""
    first = {record.label: rows(record.folder)[1]["loss"] for record in compared[1]}
    assert first["embed_detach"] == first["baseline"]
    assert first["scaled_embed"] != first["baseline"]
    last = {record.label: rows(record.folder)[3]["loss"] for record in compared[1]}
    assert last["embed_detach"] != last["baseline"]


def test_arms_share_the_draws_of_the_parameters_that_they_share(small_run, build, tmp_path):
    arms = plan(replace_at(small_run, {"model.vocab_size": 257}), "baseline; mlra", tmp_path / "nowhere")
    baseline, mlra = (dict(build(arm.run, arm.run.seed).named_parameters()) for arm in arms)
    assert not (tmp_path / "nowhere").exists(), "a plan writes nothing"
    shared = baseline.keys() & mlra.keys()
    assert len(shared) > 10
    assert all(torch.equal(baseline[name], mlra[name]) for name in shared)


def test_arms_see_the_same_data_and_schedule(compared):
    _, records = compared
    hashes = {json.loads((record.folder / "run.json").read_text())["data_hash"] for record in records}
    assert len(hashes) == 1
    for key in ("lr", "tokens", "epoch"):
        assert len({tuple(row.get(key) for row in rows(record.folder)) for record in records}) == 1
    assert len({record.environment["precision"] for record in records}) == 1


def test_finished_runs_are_kept_and_new_arms_added(compared, small_run):
    folder, records = compared

    def weights():
        return {
            path: path.stat().st_mtime_ns
            for record in records
            for path in sorted(record.folder.glob("checkpoints/*/*.safetensors"))
        }

    before, numbers = weights(), [rows(record.folder) for record in records]
    assert len(before) == 2 * 3 * 4
    again = compare(small_run, "baseline; embed_detach; scaled_embed; mlra; small_init", folder)
    assert weights() == before
    assert [rows(record.folder) for record in records] == numbers
    assert [record.rows for record in again[:4]] == [record.rows for record in records]
    assert again[4].status["state"] == "finished"


def test_each_seed_is_a_run(small_run, tmp_path):
    records = compare(replace_at(small_run, {"seed": 5, "steps": 1}), "baseline", tmp_path, seeds=2)
    assert [record.seed for record in records] == [5, 6]
    assert [record.folder.name for record in records] == ["baseline-seed5", "baseline-seed6"]
    assert rows(records[0].folder)[1]["loss"] != rows(records[1].folder)[1]["loss"]


@dataclass(frozen=True, kw_only=True)
class Explode:
    """A technique that cannot end well."""

    def __call__(self, run):
        return replace_at(run, {"optim.lr": 1e10, "gradients": (), "schedule.warmup_steps": 0})


def test_an_unhealthy_arm_stops_no_other_and_is_left_in(small_run, tmp_path, monkeypatch):
    module = types.ModuleType("explosive_lab")
    module.Explode = Explode
    monkeypatch.setitem(sys.modules, "explosive_lab", module)
    seen = []

    class Watch:
        def log(self, row):
            seen.append(row["step"])

        def flush(self): ...

        def close(self):
            seen.append("closed")

    records = compare(small_run, "explosive_lab:Explode; baseline", tmp_path, watch=lambda arm: Watch())
    assert [record.status["state"] for record in records] == ["unhealthy", "finished"]
    assert records[0].summary().failed
    assert seen.count("closed") == 2
    assert "Explode" in (tmp_path / "report.html").read_text()
    steps = Checkpoints(records[0].folder).steps()
    assert steps, "the last good checkpoint is kept"
    for step in steps:
        tensors = load_file(Checkpoints(records[0].folder).path(step) / "model.safetensors")
        assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_one_precision_for_all_arms(small_run, tmp_path, monkeypatch):
    """Measured once, on the first arm; a clock must not decide arm by arm, nor when the comparison is run again."""
    answers = iter(["bf16", "fp32", "fp32", "fp32"])
    monkeypatch.setattr(
        "spikeless.experiments.compare.choose_precision", lambda *_: (next(answers), {"fp32": 1.0, "bf16": 0.5})
    )
    run = replace_at(small_run, {"precision": "auto", "steps": 1})
    records = compare(run, "baseline; embed_detach", tmp_path)
    records += compare(run, "embed_detach; mlra", tmp_path)
    assert {record.config["precision"] for record in records} == {"bf16"}
    assert {record.environment["precision"] for record in records} == {"bf16"}


@pytest.mark.parametrize(
    ("text", "arms"),
    [
        ("baseline", [[]]),
        (" baseline ; mlra; ", [[], ["mlra"]]),
        ("mlra(rank=16)+scaled_embed;baseline", [["mlra(rank=16)+scaled_embed"], []]),
    ],
)
def test_arms_are_parsed(text, arms):
    assert parse_arms(text) == arms


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ("", "write arms separated"),
        (" ; ", "write arms separated"),
        ("baseline;;mlra", "write arms separated"),
        ("baseline; baseline", "names baseline more than once"),
        ("mlra+scaled_embed; scaled_embed+mlra", "more than once"),
        ("baseline; mlar", "did you mean 'mlra'"),
        ("scaled_embed+embed_norm", "exclude each other"),
        ("mlra(rank=4000)", "use 1 to 32"),
    ],
)
def test_wrong_arms_are_refused_before_anything_is_trained(arms, message, small_run, tmp_path):
    with pytest.raises(UserError, match=message):
        compare(small_run, arms, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seeds", [0, -1])
def test_there_is_at_least_one_seed(seeds, small_run, tmp_path):
    with pytest.raises(UserError, match="use a whole number from 1"):
        compare(small_run, "baseline", tmp_path, seeds=seeds)
