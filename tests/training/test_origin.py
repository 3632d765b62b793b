"""Branches: a run that begins with the state of another run's checkpoint."""

import json
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from spikeless.config import replace_at
from spikeless.errors import SpikelessWarning, UnhealthyRun, UserError
from spikeless.files import sha256
from spikeless.optim.schedules.constant import Constant
from spikeless.training.checkpoints import Checkpoints
from spikeless.training.loop import train
from spikeless.training.origin import Origin, parse_origin
from spikeless.training.run_folder import RunFolder


def rows(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {row.pop("step"): {k: v for k, v in row.items() if k != "tokens_per_second"} for row in lines}


def weights(folder, step):
    return load_file(Checkpoints(folder).path(step) / "model.safetensors")


def recorded(folder):
    return json.loads((folder / "run.json").read_text())


def test_without_a_change_it_is_the_runs_own_continuation_to_the_last_bit(eight_steps, tmp_path):
    _, whole = eight_steps
    train(None, tmp_path / "branch", branch_from=f"{whole}@4")
    theirs = rows(whole)
    assert rows(tmp_path / "branch") == {step: theirs[step] for step in (5, 6, 7, 8)}
    ours, theirs = weights(tmp_path / "branch", 8), weights(whole, 8)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_it_began_from_is_recorded_and_the_origin_is_left_alone(eight_steps, tmp_path):
    run, whole = eight_steps
    before = {file: file.read_bytes() for file in whole.rglob("*") if file.is_file()}
    lower = replace_at(run, {"optim.lr": 1e-4, "gradients": ()})
    train(lower, tmp_path / "branch", branch_from=f"{whole}@4")
    origin = recorded(tmp_path / "branch")["origin"]
    assert origin == {
        "folder": str(whole),
        "step": 4,
        "tokens": 4 * 4 * 32,
        "checkpoint": sha256(Checkpoints(whole).path(4) / "manifest.json"),
        "changes": [
            {"path": "optim.lr", "old": 1e-3, "new": 1e-4},
            {"path": "gradients", "old": "(ClipNorm(max_norm=1.0),)", "new": "()"},
        ],
    }
    page = (tmp_path / "branch" / "report.html").read_text()
    assert "@4: optim.lr: 0.001 -&gt; 0.0001, gradients: " in page
    ours, theirs = rows(tmp_path / "branch"), rows(whole)
    assert ours[5]["loss"] == theirs[5]["loss"]
    assert ours[5]["lr"] == pytest.approx(theirs[5]["lr"] / 10)
    assert ours[6]["loss"] != theirs[6]["loss"]
    assert {file: file.read_bytes() for file in whole.rglob("*") if file.is_file()} == before


def test_a_branch_that_was_interrupted_is_resumed_from_its_folder_alone(eight_steps, tmp_path):
    """The run that it began from may be gone by then, and pruning a branch takes nothing from it."""
    run, whole = eight_steps
    origin = shutil.copytree(whole, tmp_path / "origin")
    lower = replace_at(run, {"optim.lr": 1e-4, "checkpoint.every": 1})
    train(lower, tmp_path / "whole", branch_from=f"{origin}@4")
    assert Checkpoints(origin).steps() == [4, 8]

    class Stop:
        def log(self, row):
            if row["step"] == 5:
                signal.raise_signal(signal.SIGTERM)

        def flush(self): ...

        def close(self): ...

    train(lower, tmp_path / "cut", branch_from=f"{origin}@4", loggers=[Stop()])
    assert max(rows(tmp_path / "cut")) == 6
    with pytest.raises(UserError, match=r"a branch of .*origin@4, not one of .*origin@8; leave out --branch-from"):
        train(lower, tmp_path / "cut", resume=True, branch_from=f"{origin}@8")
    namesake = shutil.copytree(origin, tmp_path / "elsewhere" / "origin")
    (Checkpoints(namesake).path(4) / "manifest.json").write_text("of another run")
    with pytest.raises(UserError, match=r"not one of .*elsewhere/origin@4; leave out --branch-from"):
        train(lower, tmp_path / "cut", resume=True, branch_from=f"{namesake}@4")
    parse_origin(f"{origin.rename(tmp_path / 'moved')}@4").refuse_other(RunFolder(tmp_path / "cut"))
    shutil.rmtree(tmp_path / "moved")
    train(lower, tmp_path / "cut", resume=True, branch_from=f"{origin}@4")
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    ours, theirs = weights(tmp_path / "cut", 8), weights(tmp_path / "whole", 8)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert recorded(tmp_path / "cut") == recorded(tmp_path / "whole")


def test_killed_before_its_first_step_it_begins_again_or_goes_on(eight_steps, tmp_path, monkeypatch):
    run, whole = eight_steps
    folder = tmp_path / "branch"
    with monkeypatch.context() as patch:
        patch.setattr("spikeless.training.run_folder.RunFolder.begin", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):  # its checkpoint is there, its description is not
            train(run, folder, branch_from=f"{whole}@4")
    with pytest.raises(UserError, match="checkpoints of a run that is gone"):
        train(replace_at(run, {"steps": 9}), folder, branch_from=f"{whole}@8")
    for resume in (False, True):
        with pytest.raises(UserError, match="checkpoints of a run that is gone; choose another --out"):
            train(run, folder, resume=resume)  # a run of its own, whose resume would go on from that checkpoint
    with monkeypatch.context() as patch:
        patch.setattr("spikeless.training.loop._Trainer.train", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(run, folder, branch_from=f"{whole}@4")
    train(None, folder, resume=True)
    assert min(rows(folder)) == 5


def test_another_batch_and_more_steps_are_said_and_tokens_are_counted_on(eight_steps, tmp_path):
    run, whole = eight_steps
    larger = replace_at(run, {"data.batch_size": 8, "steps": 10, "schedule": Constant()})
    with pytest.warns(SpikelessWarning, match=r"data\.batch_size: the data come in another order.*joins at step 9"):
        train(larger, tmp_path / "branch", branch_from=whole)
    assert [row["tokens"] for row in rows(tmp_path / "branch").values()] == [8 * 128 + 256, 8 * 128 + 512]
    assert recorded(tmp_path / "branch")["origin"]["step"] == 8, "the newest"


def test_more_steps_of_a_schedule_that_stretches_are_said(eight_steps, tmp_path):
    run, _ = eight_steps
    short = replace_at(run, {"schedule.warmup_steps": 1})
    train(short, tmp_path / "origin")
    with pytest.warns(SpikelessWarning, match="stretches from 8 to 16 steps: the learning rate of step 9 is"):
        train(replace_at(short, {"steps": 16}), tmp_path / "branch", branch_from=f"{tmp_path / 'origin'}@8")


def test_an_unhealthy_run_goes_on_with_a_lower_rate(eight_steps, tmp_path):
    run, whole = eight_steps
    wild = replace_at(run, {"optim.lr": 1e10, "gradients": ()})
    with pytest.raises(
        UnhealthyRun, match=r"to go on from there with a lower rate: --branch-from .*wild@4 --set"
    ) as told:
        train(wild, tmp_path / "wild", branch_from=f"{whole}@4")
    origin = str(told.value).partition("--branch-from ")[2].split()[0]
    record = train(run, tmp_path / "calm", branch_from=origin)
    assert record.summary().state == "finished"
    assert rows(tmp_path / "calm")[8] == rows(whole)[8]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.width": 64}, r"keeps their shapes: embedding\.weight was \(257, 32\) and would be \(257, 64\)"),
        ({"model.num_layers": 3}, r"blocks\.2\..* was missing and would be"),
        ({"data.tokenizer": "bpe:300"}, r"tokenizer's tokens; data\.tokenizer: 'bytes' -> 'bpe:300'"),
        ({"steps": 4}, r"steps=4 has none left; --set steps=… to more than 4"),
    ],
)
def test_what_the_checkpoint_means_nothing_for_is_refused(eight_steps, tmp_path, changes, message):
    run, whole = eight_steps
    with pytest.raises(UserError, match=message):
        train(replace_at(run, changes), tmp_path / "branch", branch_from=f"{whole}@4")
    assert not (tmp_path / "branch").exists()


def test_where_it_may_begin(eight_steps, tmp_path):
    run, whole = eight_steps
    for origin, message in (
        (f"{whole}@5", "has no checkpoint of step 5; it has those of 4, 8"),
        (f"{whole}@x", "names no run folder; write RUN@STEP"),
        (tmp_path / "nothing", "names no run folder"),
    ):
        with pytest.raises(UserError, match=message):
            train(run, tmp_path / "branch", branch_from=origin)
    with pytest.raises(UserError, match="already holds a run"):
        train(run, whole, branch_from=f"{whole}@4")
    assert parse_origin(Checkpoints(whole).path(4)) == parse_origin(f"{whole}@4") == Origin(folder=whole, step=4)
    odd = shutil.copytree(whole, tmp_path / "lr@4")
    assert parse_origin(odd) == Origin(folder=odd)
    assert parse_origin(f"{odd}@8") == Origin(folder=odd, step=8)


def test_a_broken_checkpoint_is_refused(eight_steps, tmp_path):
    run, whole = eight_steps
    origin = shutil.copytree(whole, tmp_path / "origin")
    (Checkpoints(origin).path(4) / "training.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="corrupted"):
        train(run, tmp_path / "branch", branch_from=f"{origin}@4")
    assert not (tmp_path / "branch").exists()
