"""What can go wrong while a run trains: each a clear message, nothing lost."""

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spikeless.config import replace_at
from spikeless.errors import UnhealthyRun, UserError
from spikeless.training import checkpoints as checkpoints_module
from spikeless.training.checkpoints import Checkpoints
from spikeless.training.loop import train
from spikeless.training.state import TrainState


def all_finite(folder: Path) -> bool:
    files = list((folder / "checkpoints").glob("step-*/*.safetensors"))
    assert files
    return all(bool(t.float().isfinite().all()) for file in files for t in load_file(file).values())


@pytest.mark.parametrize("sick", ["loss", "gradient", "parameter"])
def test_what_is_not_finite_is_never_published(tmp_path, quick_run, monkeypatch, sick):
    """Step 6 is poisoned; step 4 was saved, step 8 must not be."""
    whole = TrainState.is_finite

    def poison(parameters):
        next(iter(parameters.values())).data.view(-1)[0] = float("nan")

    if sick == "parameter":  # only the check before publishing can see it: the step after it is never done
        run = replace_at(quick_run, {"steps": 8, "checkpoint.every": 4})
        monkeypatch.setattr(
            TrainState, "is_finite", lambda self: (self.step == 8 and poison(self.parameters)) or whole(self)
        )
    else:
        run = replace_at(quick_run, {"steps": 20})
        step = TrainState.snapshot

        def snapshot(self, *arguments):
            if self.step == 6 and sick == "loss":
                poison(self.parameters)
            return step(self, *arguments)

        monkeypatch.setattr(TrainState, "snapshot", snapshot)
        if sick == "gradient":
            from spikeless.training import loop

            norm = loop.global_norm
            calls = iter(range(1, 100))
            monkeypatch.setattr(
                loop, "global_norm", lambda gradients: norm(gradients) * (float("inf") if next(calls) == 6 else 1)
            )
    with pytest.raises(UnhealthyRun, match=r"step (6|7|8): .*last good checkpoint is .*step-00000004"):
        train(run, tmp_path)
    assert Checkpoints(tmp_path).steps() == [4]
    assert (tmp_path / "checkpoints" / "latest").read_text() == "step-00000004\n"
    assert all_finite(tmp_path)
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "unhealthy"
    assert (tmp_path / "report.html").exists()


def test_large_parameters_are_finite_although_their_norm_is_not(tiny_run, build):
    run = tiny_run("gpt2")
    model = build(run)
    state = TrainState(model, run.optim.build(model.named_parameters()), torch.device("cpu"))
    model.embedding.weight.data[:2] = 3e38
    assert torch.linalg.vector_norm(model.embedding.weight) == torch.inf
    assert state.is_finite()
    for bad in (float("inf"), float("nan")):
        model.embedding.weight.data[0, 0] = bad
        assert not state.is_finite()


def test_an_explosion_stops_with_its_step(tmp_path, quick_run):
    run = replace_at(quick_run, {"optim.lr": 1e30, "gradients": (), "schedule.warmup_steps": 0})
    with pytest.raises(UnhealthyRun, match=r"step [12]: non-finite"):
        train(run, tmp_path)
    rows = (tmp_path / "metrics.jsonl").read_text()
    assert '"NaN"' in rows or '"Infinity"' in rows


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, quick_run, monkeypatch, number):
    real, calls = checkpoints_module.save_file, []

    def save(tensors, path):
        calls.append(path)
        if len(calls) > 2:  # the second checkpoint
            Path(path).write_bytes(b"half")
            raise OSError(number, "no")
        real(tensors, path)

    monkeypatch.setattr(checkpoints_module, "save_file", save)
    with pytest.raises(UserError, match=r"cannot write .*step-00000008"):
        train(quick_run, tmp_path)
    monkeypatch.undo()
    assert Checkpoints(tmp_path).steps() == [4]
    assert not list((tmp_path / "checkpoints").glob(".*"))
    assert Checkpoints(tmp_path).newest().step == 4
    assert train(quick_run, tmp_path, resume=True).summary().state == "finished"


def test_a_real_limit_on_file_size(tmp_path, quick_run):
    """The kernel refuses the write, as it does when a disk is full."""
    code = """
import resource, signal, sys, json
from spikeless.config import from_dict
from spikeless.errors import UserError
from spikeless.run import RunConfig
from spikeless.training.loop import train
run = from_dict(json.load(open(sys.argv[1])), RunConfig)
from spikeless.data import prepare
prepare(run.data.spec, run.data.tokenizer, validation_fraction=run.data.validation_fraction)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    train(run, sys.argv[2])
except UserError as error:
    print("said:", error)
"""
    from spikeless.config import to_dict

    description = tmp_path / "run.json"
    description.write_text(json.dumps(to_dict(replace_at(quick_run, {"metrics.loggers": ()}))))
    done = subprocess.run(
        [sys.executable, "-c", code, str(description), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "said: cannot write" in done.stdout, done.stderr
    assert Checkpoints(tmp_path / "run").steps() == []


@pytest.mark.parametrize("where", ["_read_start", "_step", "_journal"])
def test_whatever_goes_wrong_the_status_says_it(tmp_path, quick_run, monkeypatch, where):
    """A run that is not at work never says that it is running."""
    from spikeless.training.loop import _Trainer

    def fail(*_):
        raise RuntimeError("the device has no room\nand more")

    monkeypatch.setattr(_Trainer, where, fail)
    with pytest.raises(RuntimeError, match="no room"):
        train(quick_run, tmp_path)
    status = json.loads((tmp_path / "status.json").read_text())
    assert status == {"state": "failed", "step": 0, "message": "RuntimeError: the device has no room"}


def test_a_second_ctrl_c_leaves_an_interrupted_run(tmp_path, quick_run, monkeypatch):
    def press(*_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(TrainState, "snapshot", press)
    with pytest.raises(KeyboardInterrupt):
        train(quick_run, tmp_path)
    status = json.loads((tmp_path / "status.json").read_text())
    assert status == {"state": "interrupted", "step": 0, "message": "SIGINT"}


def test_a_folder_in_use_is_refused(tmp_path, quick_run):
    from spikeless.files import locked

    with locked(tmp_path), pytest.raises(UserError, match="in use by another process"):
        train(quick_run, tmp_path)
    assert not (tmp_path / "run.json").exists()


def test_too_short_a_corpus_is_said_before_anything_is_written(tmp_path, quick_run):
    (tmp_path / "short.txt").write_text("too short to train on\n\nby far")
    run = replace_at(quick_run, {"data.spec": f"text:{tmp_path}/short.txt"})
    with pytest.raises(UserError, match=r"sequence_length"):
        train(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_trains_on_a_gpu(tmp_path, quick_run):
    record = train(replace_at(quick_run, {"device": "cuda", "precision": "bf16"}), tmp_path)
    assert record.summary().state == "finished"
