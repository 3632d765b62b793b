"""What may change when a run is resumed, what may not, and what is said and recorded of it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spikeless.config import replace_at
from spikeless.errors import SpikelessWarning, UserError
from spikeless.init.xavier import XavierInit
from spikeless.optim.gradients.clip_norm import ClipNorm
from spikeless.optim.schedules.constant import Constant
from spikeless.optim.schedules.cosine import Cosine
from spikeless.optim.schedules.wsd import WSD
from spikeless.training.checkpoints import Checkpoints
from spikeless.training.continuation import warn_of_a_jump
from spikeless.training.loop import train
from spikeless.training.origin import begin_branch, parse_origin
from spikeless.training.run_folder import RunFolder

ORDER = (
    "device",
    "data.spec",
    *(f"checkpoint.{name}" for name in ("every", "keep_last", "keep_best")),
    *(f"evaluation.{name}" for name in ("every", "tokens")),
    *(f"metrics.{name}" for name in ("every", "diagnostics", "loggers")),
)
"""Of the fields of a run."""


def parameters(folder: Path) -> torch.Tensor:
    state = load_file(Checkpoints(folder).path(8) / "model.safetensors")
    return torch.cat([each.flatten() for each in state.values()])


def recorded(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def test_what_costs_no_bit_may_change_and_is_said_and_recorded(halfway, eight_steps, corpus, tmp_path):
    run, folder = halfway
    elsewhere = shutil.copytree(Path(corpus.removeprefix("text:")).parent, tmp_path / "elsewhere")
    changes = {
        "data.spec": f"text:{elsewhere}/*.txt",
        "device": "cpu",
        "evaluation.every": 3,
        "evaluation.tokens": 128,
        "checkpoint.every": 1,
        "checkpoint.keep_last": 9,
        "checkpoint.keep_best": 0,
        "metrics.every": 1,
        "metrics.diagnostics": ("tev", "update_norm"),
        "metrics.loggers": (),
    }
    with pytest.warns(SpikelessWarning) as told:
        train(replace_at(run, changes), folder, resume=True)
    assert Checkpoints(folder).steps() == [4, 5, 6, 7, 8]
    assert torch.equal(parameters(folder), parameters(eight_steps[1]))
    lines = [str(each.message) for each in told if str(each.message).startswith("resumed with")]
    assert "resumed with checkpoint.every: 4 -> 1" in lines
    assert [line.split()[2].rstrip(":") for line in lines] == sorted(changes, key=ORDER.index)
    (entry,) = recorded(folder)["history"]
    assert entry["step"] == 4
    assert {each["path"] for each in entry["changes"]} == set(changes)
    assert {"path": "checkpoint.every", "old": 4, "new": 1} in entry["changes"]


@pytest.mark.parametrize("changes", [{"data.micro_batches": 2}, {"loss.chunk_tokens": 8}])
def test_what_costs_the_last_bits_says_so(halfway, eight_steps, changes):
    run, folder = halfway
    with pytest.warns(SpikelessWarning, match=f"{next(iter(changes))}: .*; the last bits of the numbers may differ"):
        train(replace_at(run, changes), folder, resume=True)
    torch.testing.assert_close(parameters(folder), parameters(eight_steps[1]), rtol=1e-4, atol=1e-5)


def test_another_precision_is_taken_and_kept(halfway):
    run, folder = halfway
    longer = replace_at(run, {"precision": "bf16"})
    with pytest.warns(SpikelessWarning, match="precision: 'fp32' -> 'bf16'; numbers are rounded otherwise"):
        train(longer, folder, resume=True)
    assert json.loads((folder / "environment.json").read_text())["precision"] == "bf16"
    train(longer, folder, resume=True)
    assert len(recorded(folder)["history"]) == 1


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        ("optim.lr", 0.5, r"optim\.lr: 0\.001 -> 0\.5"),
        ("schedule", Constant(), r"schedule: Cosine\(.* -> Constant\("),
        ("schedule.warmup_steps", 7, r"schedule\.warmup_steps: 50 -> 7"),
        ("gradients", (), r"gradients: \(ClipNorm\(.* -> \(\)"),
        ("seed", 5, "seed: 0 -> 5"),
        ("data.batch_size", 8, r"data\.batch_size: 4 -> 8"),
        ("data.sequence_length", 16, r"data\.sequence_length: 32 -> 16"),
        ("model.width", 64, r"model\.width: 32 -> 64"),
        ("init.scheme", XavierInit(), r"init\.scheme: .* -> XavierInit\("),
        ("techniques", ("mlra",), r"techniques: \(\) -> \('mlra',\)"),
    ],
)
def test_what_changes_the_mathematics_is_refused_and_a_branch_named_where_one_can_begin(
    eight_steps, path, value, shown
):
    run, folder = eight_steps
    branch = rf"--branch-from {folder}@4 --set {path}=… --out NEW"
    advice = "or choose another --out$" if path.startswith(("model", "init", "techniques")) else branch
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    with pytest.raises(UserError, match=rf"(?s){shown}.*{advice}"):
        train(replace_at(run, {path: value}), folder, resume=True)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_the_branch_that_a_refusal_names_can_begin(eight_steps, tmp_path):
    """A tuple is set as a whole, the steps that were asked for are named too, and some of them are left."""
    run, folder = eight_steps
    asked = replace_at(run, {"gradients": (ClipNorm(max_norm=0.5),), "steps": 6})
    with pytest.raises(UserError, match=r"@4 --set steps=… --set gradients=… --out NEW") as told:
        train(asked, folder, resume=True)
    origin = str(told.value).partition("--branch-from ")[2].split()[0]
    begin_branch(parse_origin(origin), asked, RunFolder(tmp_path / "branch"))
    for change in ({"data.tokenizer": "bpe:300"}, {"steps": 3}):
        with pytest.raises(UserError, match=r"or choose another --out$"):
            train(replace_at(run, change), folder, resume=True)


@pytest.mark.parametrize("steps", [7, 1])
def test_fewer_steps_are_refused(eight_steps, steps):
    run, folder = eight_steps
    before = (folder / "run.json").read_text()
    with pytest.raises(
        UserError, match=f"a run of 8 steps, and a resume may train for longer only, not for steps={steps}"
    ):
        train(replace_at(run, {"steps": steps}), folder, resume=True)
    assert (folder / "run.json").read_text() == before


def test_what_is_stored_is_enough(halfway, eight_steps):
    """Also without fields that the configuration did not have when it was written."""
    _, folder = halfway
    run = recorded(folder)
    del run["config"]["checkpoint"]["keep_best"]
    (folder / "run.json").write_text(json.dumps(run))
    train(None, folder, resume=True)
    assert torch.equal(parameters(folder), parameters(eight_steps[1]))
    assert recorded(folder)["config"] == recorded(eight_steps[1])["config"]
    assert "history" not in recorded(folder)
    with pytest.raises(UserError, match="holds no run that could be resumed"):
        train(None, folder / "nothing", resume=True)


def test_an_unhealthy_run_is_told_that_it_comes_again(halfway):
    _, folder = halfway
    (folder / "status.json").write_text(json.dumps({"state": "unhealthy", "step": 6, "message": "step 6: too much"}))
    with pytest.warns(
        SpikelessWarning, match=r"step 6: too much.*--branch-from .*halfway@4 --set optim\.lr=… --out NEW"
    ):
        train(None, folder, resume=True)


SCHEDULES = [Cosine(warmup_steps=4), WSD(warmup_steps=4, decay_share=0.5), Constant(warmup_steps=4)]


@pytest.mark.parametrize(
    ("schedule", "step", "rates"),
    [
        (SCHEDULES[0], 40, "0.000578, not 0.0001"),
        (SCHEDULES[0], 20, "0.000903, not 0.00061"),
        (SCHEDULES[0], 3, None),  # in the warm-up
        (SCHEDULES[1], 40, "0.001, not 0.0001"),
        (SCHEDULES[1], 20, None),  # in the stable phase
        (SCHEDULES[2], 40, None),
    ],
)
def test_a_learning_rate_that_jumps_is_said(tiny_run, schedule, step, rates, recwarn):
    """The schedule stretches from 40 to 80 steps."""
    warn_of_a_jump(replace_at(tiny_run(), {"steps": 80, "schedule": schedule}), 40, step)
    lines = [str(each.message) for each in recwarn]
    assert len(lines) == (rates is not None)
    if rates:
        assert lines[0].endswith(f"the learning rate of step {step + 1} is {rates}")


def test_a_resume_for_longer_tells_the_rates_that_it_trains_at(halfway):
    run, folder = halfway
    run_json = recorded(folder)
    run_json["config"]["schedule"] |= {"warmup_steps": 1}
    (folder / "run.json").write_text(json.dumps(run_json))
    longer = replace_at(run, {"steps": 9, "schedule.warmup_steps": 1})
    with pytest.warns(
        SpikelessWarning, match="stretches from 8 to 9 steps: the learning rate of step 5 is (.*), not"
    ) as told:
        train(longer, folder, resume=True)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert f"{rows[5]['lr']:.3g}, not" in str(told[0].message)
    assert recorded(folder)["history"] == [{"step": 4, "changes": [{"path": "steps", "old": 8, "new": 9}]}]
