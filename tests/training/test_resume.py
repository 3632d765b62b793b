"""A killed run, resumed, is the run that was never killed, to the last bit."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spikeless.config import replace_at, to_dict
from spikeless.errors import SpikelessWarning, UserError
from spikeless.training.checkpoints import Checkpoints, read_checkpoint
from spikeless.training.loop import train

CHILD = """
import json, sys
from spikeless.config import from_dict
from spikeless.run import RunConfig
from spikeless.training.loop import train
run = from_dict(json.load(open(sys.argv[1])), RunConfig)
train(run, sys.argv[2], resume=True)
"""


def rows(folder: Path) -> list[dict]:
    """The metrics, without what a clock measured."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in lines]


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    steps = Checkpoints(folder).steps()
    return load_file(Checkpoints(folder).path(steps[-1]) / "model.safetensors")


def assert_same_run(one: Path, other: Path) -> None:
    assert rows(one) == rows(other)
    assert [row["step"] for row in rows(one)] == list(range(len(rows(one))))
    ours, theirs = parameters(one), parameters(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def start(tmp_path: Path, run, folder: Path) -> subprocess.Popen:
    description = tmp_path / "run.json"
    description.write_text(json.dumps(to_dict(run)))
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.Popen([sys.executable, "-c", CHILD, str(description), str(folder)], env=environment)


def wait_for_step(folder: Path, step: int, child: subprocess.Popen) -> None:
    """Return as soon as the child has written a row of that step, or has ended."""
    deadline = time.monotonic() + 60
    while child.poll() is None and time.monotonic() < deadline:
        file = folder / "metrics.jsonl"
        if file.exists() and f'{{"step": {step},' in file.read_text():
            return
        time.sleep(0.005)


def test_killed_at_any_moment_it_resumes_bit_identically(tmp_path, quick_run):
    run = replace_at(quick_run, {"steps": 30})
    train(run, tmp_path / "whole")
    killed, deaths = tmp_path / "killed", 0
    chance = random.Random(1)
    for step in (0, 6, 13, 21):  # before the first checkpoint, and at odd places between later ones
        child = start(tmp_path, run, killed)
        wait_for_step(killed, step, child)
        time.sleep(chance.uniform(0, 0.05))
        deaths += child.poll() is None
        child.kill()
        child.wait()
    assert deaths >= 3, "the runs ended before they could be killed: the test tests nothing"
    train(run, killed, resume=True)
    assert_same_run(tmp_path / "whole", killed)


class At:
    """A logger that does something when the row of a step comes by."""

    def __init__(self, step: int, act) -> None:
        self.step, self.act = step, act

    def log(self, row) -> None:
        if row["step"] == self.step:
            self.act()

    def flush(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_signal_saves_and_the_rest_is_the_same(tmp_path, ten_steps, name):
    run, whole = ten_steps
    record = train(run, tmp_path, loggers=[At(5, lambda: signal.raise_signal(signal.Signals[name]))])
    assert record.status == {"state": "interrupted", "step": 6, "message": name}, "rows are read a step late"
    assert Checkpoints(tmp_path).steps() == [6]
    train(run, tmp_path, resume=True)
    assert_same_run(whole, tmp_path)


def test_a_signal_in_the_last_step_finds_the_run_finished(tmp_path, quick_run):
    record = train(
        replace_at(quick_run, {"steps": 2}), tmp_path, loggers=[At(2, lambda: signal.raise_signal(signal.SIGTERM))]
    )
    assert record.status == {"state": "finished", "step": 2, "message": ""}


@pytest.fixture(scope="module")
def ten_steps(tmp_path_factory, quick_run):
    """A finished run of ten steps with a checkpoint at the end."""
    folder = tmp_path_factory.mktemp("ten") / "run"
    run = replace_at(quick_run, {"steps": 10, "checkpoint.every": 0})
    train(run, folder)
    return run, folder


def test_more_steps_and_another_place_are_allowed(tmp_path, quick_run):
    """The constant schedule does not depend on the number of steps, so the longer run is the same run."""
    from spikeless.optim.schedules.constant import Constant

    run = replace_at(quick_run, {"schedule": Constant(warmup_steps=2)})
    train(run, tmp_path / "first")
    (tmp_path / "first").rename(tmp_path / "moved")
    longer = replace_at(run, {"steps": 31})
    train(longer, tmp_path / "moved", resume=True)
    train(longer, tmp_path / "whole")
    extra_evaluation = {20}  # the shorter run ended there
    for ours, theirs in zip(rows(tmp_path / "moved"), rows(tmp_path / "whole"), strict=True):
        assert ours == theirs or ours["step"] in extra_evaluation
    assert json.loads((tmp_path / "moved" / "run.json").read_text())["config"]["steps"] == 31


def test_changed_data_is_refused(tmp_path, quick_run):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number in range(4):
        (corpus / f"{number}.txt").write_text(f"{number} " * 2000)
    run = replace_at(quick_run, {"steps": 2, "data.spec": f"text:{corpus}/*.txt"})
    train(run, tmp_path / "run")
    (corpus / "1.txt").write_text("other " * 2000)
    with pytest.raises(UserError, match=r"data of .* has changed"):
        train(run, tmp_path / "run", resume=True)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
@pytest.mark.parametrize("part", ["model.safetensors", "training.safetensors", "state.json", "manifest.json"])
def test_a_broken_checkpoint_is_passed_over_loudly(tmp_path, eight_steps, part, damage):
    run, whole = eight_steps
    folder = shutil.copytree(whole, tmp_path / "broken")
    file = Checkpoints(folder).path(8) / part
    raw = bytearray(file.read_bytes())
    if damage == "flip":
        raw[len(raw) // 2] ^= 1
    file.write_bytes(bytes(raw[: len(raw) // 2] if damage == "truncate" else raw))
    if damage == "remove":
        file.unlink()
    with pytest.warns(SpikelessWarning, match="step-00000008.*using the one before it"):
        train(run, folder, resume=True)
    assert_same_run(whole, folder)
    assert (folder / "checkpoints" / "latest").read_text() == "step-00000008\n"


@pytest.mark.parametrize("reader", ["sha256", "read_json", "load_file"])
def test_a_checkpoint_that_cannot_be_read_now_ends_the_resume_and_is_kept(tmp_path, eight_steps, reader, monkeypatch):
    run, whole = eight_steps
    folder = shutil.copytree(whole, tmp_path / "run")

    def unreadable(path, *_):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(f"spikeless.training.checkpoints.{reader}", unreadable)
    with pytest.raises(UserError, match=r"cannot read .*step-00000008: .*Input/output error"):
        train(run, folder, resume=True)
    assert Checkpoints(folder).steps() == [4, 8]


@pytest.mark.parametrize("when", ["resume", "prune"])
def test_an_old_broken_checkpoint_or_a_strange_name_harms_nothing(tmp_path, eight_steps, when):
    run, whole = eight_steps
    folder = shutil.copytree(whole, tmp_path / "broken")
    (Checkpoints(folder).path(4) / "state.json").unlink()
    shutil.copytree(Checkpoints(folder).path(8), folder / "checkpoints" / "step-00000008.bak")
    steps = 8 if when == "resume" else 12
    train(replace_at(run, {"steps": steps}), folder, resume=True)
    assert Checkpoints(folder).newest().step == steps


def test_removing_unpublishes_first(tmp_path, eight_steps, monkeypatch):
    """A kill while a checkpoint is being deleted leaves no half of one under a published name."""
    _, whole = eight_steps
    checkpoints = Checkpoints(shutil.copytree(whole, tmp_path / "run"))

    def killed(path, **keywords):
        if path.exists():
            next(iter(sorted(path.iterdir()))).unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.prune(keep_last=1, keep_best=0)
    monkeypatch.undo()
    for step in checkpoints.steps():
        read_checkpoint(checkpoints.path(step))


def test_without_a_whole_checkpoint_it_stops(tmp_path, quick_run):
    run = replace_at(quick_run, {"steps": 4})
    train(run, tmp_path)
    (Checkpoints(tmp_path).path(4) / "model.safetensors").write_bytes(b"")
    with (
        pytest.warns(SpikelessWarning, match="none before it"),
        pytest.raises(UserError, match=r"none of the checkpoints .* is whole"),
    ):
        train(run, tmp_path, resume=True)


def test_other_conditions_are_said(tmp_path, quick_run):
    train(replace_at(quick_run, {"steps": 4}), tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(before % 2 + 1)
    try:
        with pytest.warns(SpikelessWarning, match=f"threads {before} -> "):
            train(replace_at(quick_run, {"steps": 5}), tmp_path, resume=True)
    finally:
        torch.set_num_threads(before)


class Counting(torch.optim.Optimizer):
    """Plain descent that divides by its own count of steps."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                count = self.state[parameter]["count"] = self.state[parameter].get("count", 0) + 1
                parameter.sub_(parameter.grad, alpha=group["lr"] / count)


@dataclass(frozen=True, kw_only=True)
class CountingDescent:
    lr: float = 0.5

    def build(self, named_parameters):
        return Counting([parameter for _, parameter in named_parameters], {"lr": self.lr})


def test_a_run_with_another_optimizer_is_trained_resumed_and_reported(tmp_path, quick_run):
    """What needs Adam's moments is absent, and that is said once."""
    run = replace_at(quick_run, {"optim": CountingDescent(), "steps": 6, "checkpoint.every": 0})
    without = pytest.warns(SpikelessWarning, match="no readings of gradient_variance_free: Counting does not keep")
    with without as said:
        train(run, tmp_path / "whole")
    assert sum("no readings of" in str(each.message) for each in said) == 1
    with without:
        train(run, tmp_path / "stopped", loggers=[At(3, lambda: signal.raise_signal(signal.SIGTERM))])
    with without:
        train(run, tmp_path / "stopped", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
    assert not any(key.startswith("gradient_variance") for row in rows(tmp_path / "whole") for key in row)
    assert "finished" in (tmp_path / "stopped" / "report.html").read_text()
