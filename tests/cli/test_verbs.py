"""Every verb, end to end, on a run of a blink."""

import json
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from spikeless.cli._progress import LiveLine
from spikeless.cli.compare import _Live
from spikeless.cli.list import ROOMS
from spikeless.config import find, names_in
from spikeless.training import loop
from spikeless.training.checkpoints import Checkpoints


def status(folder):
    return json.loads((folder / "status.json").read_text())


def steps_logged(folder):
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


# --- train ---


def test_train_writes_a_run(finished):
    assert status(finished) == {"state": "finished", "step": 3, "message": ""}
    assert steps_logged(finished) == [0, 1, 2, 3]
    assert Checkpoints(finished).steps() == [3]
    assert {"report.html", "run.json", "environment.json", "tokenizer.json"} <= {
        path.name for path in finished.iterdir()
    }


def test_train_says_how_it_went_and_resumes_for_longer(desk, spikeless):
    done = spikeless("train gpt2_nano --with scaled_embed --with 'mlra(rank=4)' $TINY --set schedule=constant")
    assert done.code == 0
    assert "runs/gpt2_nano-mlra(rank=4)-scaled_embed/report.html" in done.out
    assert "scaled_embed" in done.out
    longer = "train gpt2_nano --with 'mlra(rank=4)+scaled_embed' $TINY --set schedule=constant --set steps=5 --resume"
    assert spikeless(longer).code == 0
    assert steps_logged(desk / "runs" / "gpt2_nano-mlra(rank=4)-scaled_embed") == [0, 1, 2, 3, 4, 5]


def test_steps_rate_and_seed_have_options_of_their_own(monkeypatch, spikeless):
    asked = []
    monkeypatch.setattr("spikeless.training.loop.train", lambda run, *_, **__: asked.append(run) or sys.exit(0))
    assert spikeless("train gpt2_nano --with scaled_embed --steps 7 --lr 0.02 --seed 5").code == 0
    assert [(run.steps, run.optim.lr, run.seed) for run in asked] == [(7, 0.02, 5)]


@pytest.mark.parametrize("line", ["--resume --out run", "run --resume"])
def test_the_folder_is_enough_to_resume(line, desk, spikeless):
    begun = spikeless("train gpt2_nano --with 'mlra(rank=4)' $TINY --set schedule=constant --out run")
    assert begun.code == 0
    assert "run has finished its 3 steps; --steps trains it for longer" in spikeless(f"train {line}").out
    before = json.loads((desk / "run" / "run.json").read_text())
    assert spikeless(f"train {line} --with mlra --steps 5").code == 0
    assert steps_logged(desk / "run") == [0, 1, 2, 3, 4, 5]
    after = json.loads((desk / "run" / "run.json").read_text())
    assert after.pop("history") == [{"step": 3, "changes": [{"path": "steps", "old": 3, "new": 5}]}]
    before["config"]["steps"] = 5
    assert after["config"] == before["config"]
    refused = spikeless(f"train {line} --with scaled_embed --lr 0.5")
    assert (refused.code, "optim.lr: 0.001 -> 0.5" in refused.err) == (2, True)
    assert "model.embedding.multiplier: 1.0 -> 4.0" in refused.err


@pytest.mark.parametrize("size", [300, 257])
def test_a_vocabulary_that_was_asked_for_is_a_change_and_one_that_was_filled_in_is_none(desk, spikeless, size):
    """257 is what the tokenizer would give: asked for it is a change all the same. A resume says what the run said."""
    setting = f"--set model.vocab_size={size}"
    shown = spikeless(f"show gpt2_nano --tokenizer bytes {setting}").out
    assert re.search(rf"model\.vocab_size +│ None +│ {size}", shown), shown
    assert "model.vocab_size" not in spikeless("show gpt2_nano --tokenizer bytes").out.partition("against")[2]
    assert spikeless(f"train gpt2_nano $TINY {setting} --out asked").code == 0
    assert spikeless("train gpt2_nano $TINY --out filled").code == 0
    for options in ("", "train --resume --out {} --steps 4"):
        for name, expected in (("asked", [{"path": "model.vocab_size", "old": None, "new": size}]), ("filled", [])):
            assert not options or spikeless(options.format(name)).code == 0
            run = json.loads((desk / name / "run.json").read_text())
            assert [each for each in run["diff"] if each["path"] == "model.vocab_size"] == expected
            assert run["config"]["model"]["vocab_size"] == (size if expected else 257)


def test_a_part_from_elsewhere_is_named_again_to_resume(desk, spikeless):
    """What is stored imports nothing from outside the package."""
    (desk / "cli_rates.py").write_text(
        "from dataclasses import dataclass\n"
        "from pathlib import Path\n"
        "Path('imported').touch()\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Flat:\n"
        "    warmup_steps: int = 0\n"
        "    level: float = 1.0\n"
        "    def factor(self, step, steps):\n"
        "        return self.level\n"
    )
    tiny = "$TINY --out flat".replace("--set schedule.warmup_steps=1", "")
    part = "--set 'schedule=cli_rates:Flat(level=0.5)' --set schedule.warmup_steps=0"
    assert spikeless(f"train gpt2_nano {tiny} {part}").code == 0
    (desk / "imported").unlink()
    del sys.modules["cli_rates"]
    refused = spikeless("train --resume --out flat --steps 4")
    assert refused.code == 2
    assert "uses 'cli_rates:Flat'" in refused.err and "name it again: --with cli_rates:Flat" in refused.err
    assert not (desk / "imported").exists()
    assert spikeless("train --resume --out flat --steps 4 --set 'schedule=cli_rates:Flat(level=0.5)'").code == 0
    assert spikeless("train --resume --out flat --steps 5 --with cli_rates:Flat").code == 0
    assert steps_logged(desk / "flat") == [0, 1, 2, 3, 4, 5]


def test_a_branch_begins_where_another_run_was(desk, spikeless):
    assert spikeless("train gpt2_nano $TINY --set schedule=constant --out run").code == 0
    done = spikeless("train --branch-from run@3 --lr 1e-4 --steps 5 --with embed_detach --out branch")
    assert done.code == 0
    assert "a branch of run@3: " in done.out and "optim.lr: 0.001 -> 0.0001" in done.out
    assert steps_logged(desk / "branch") == [4, 5]
    assert spikeless("train --branch-from run@3 --lr 1e-4 --steps 6 --out branch --resume").code == 0
    assert steps_logged(desk / "branch") == [4, 5, 6]
    for line, message in (
        ("gpt2_nano --branch-from run@3 --out other", "says what the run is; leave out the recipe"),
        ("--branch-from run@3", "--branch-from needs --out"),
        ("--branch-from run@2 --out other", "it has those of 3"),
        ("--branch-from run --out branch", "already holds a run"),
        ("--branch-from run --init-from run --out other", "leave out --init-from"),
        ("", "name a recipe"),
        ("--resume", "names no run"),
        ("--resume --out other", "other names no run"),
    ):
        refused = spikeless(f"train {line}")
        assert (refused.code, message in refused.err) == (2, True), refused
    assert not (desk / "other").exists()


def test_a_run_that_explodes_exits_1_and_keeps_the_last_good_checkpoint(desk, spikeless):
    """The rate is so large that the second forward pass overflows; the first step was still finite."""
    line = "train gpt2_nano $TINY --set steps=8 --set gradients=none --set checkpoint.every=1 --out boom"
    done = spikeless(f"{line} --set optim.lr=1e10")
    assert done.code == 1
    assert "unhealthy: boom stopped at step 2: non-finite loss = nan" in done.err
    assert f"the last good checkpoint is {Checkpoints(desk / 'boom').path(1).relative_to(desk)}" in done.err
    assert status(desk / "boom")["state"] == "unhealthy"
    assert "step 2" in status(desk / "boom")["message"]
    assert '"loss": "NaN"' in (desk / "boom" / "metrics.jsonl").read_text()
    assert (desk / "boom" / "report.html").exists()
    for step in Checkpoints(desk / "boom").steps():
        tensors = load_file(Checkpoints(desk / "boom").path(step) / "model.safetensors")
        assert all(tensor.isfinite().all() for tensor in tensors.values())
    asked = spikeless("generate boom --max-tokens 2")
    assert (asked.code, "non-finite logits" in asked.err) == (2, True)


def test_a_run_that_explodes_at_once_publishes_nothing(desk, spikeless):
    done = spikeless(
        "train gpt2_nano $TINY --set optim.lr=1e39 --set gradients=none --set checkpoint.every=1 --out boom"
    )
    assert done.code == 1
    assert "step 1: a parameter is not finite; none was saved yet" in done.err
    assert Checkpoints(desk / "boom").steps() == []


def test_a_technique_of_the_users_own_is_found_where_they_stand(desk, spikeless):
    (desk / "my_lab").mkdir()
    (desk / "my_lab" / "cli_tricks.py").write_text(
        "from dataclasses import dataclass\n"
        "from spikeless.config import replace_at\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Louder:\n"
        "    by: float = 3.0\n"
        "    def __call__(self, run):\n"
        "        return replace_at(run, {'model.embedding.multiplier': self.by})\n"
    )
    done = spikeless("train gpt2_nano --with 'my_lab.cli_tricks:Louder(by=2)' $TINY --out louder")
    assert done.code == 0
    config = json.loads((desk / "louder" / "run.json").read_text())["config"]
    assert config["model"]["embedding"]["multiplier"] == 2.0
    assert spikeless("show gpt2_nano --with my_lab.cli_tricks:Louderer").code == 2


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_an_interrupted_run_is_no_success(name, desk, spikeless, monkeypatch):
    """So that `train && export` stops."""
    number = signal.Signals[name]
    monkeypatch.setattr(LiveLine, "log", lambda _, row: row["step"] or signal.raise_signal(number))
    done = spikeless("train gpt2_nano $TINY --out run")
    assert done.code == 128 + number
    assert "interrupted at step 1" in done.out
    assert status(desk / "run") == {"state": "interrupted", "step": 1, "message": name}


@pytest.mark.parametrize("name", ["SIGINT", "SIGUSR1"])
def test_a_signal_before_the_first_step_ends_the_command_and_leaves_nothing(name, desk, spikeless, monkeypatch):
    monkeypatch.setattr(loop, "prepare", lambda *_, **__: signal.raise_signal(signal.Signals[name]))
    before = signal.getsignal(signal.SIGINT)
    done = spikeless("train gpt2_nano $TINY --out run")
    assert (done.code, done.err) == (128 + signal.Signals[name], f"stopped by {name}\n")
    assert not (desk / "run").exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupted_grid_is_no_success(desk, spikeless, monkeypatch):
    line = "compare gpt2_nano --arms 'baseline; scaled_embed' $TINY --jobs 1 --out grid"
    with monkeypatch.context() as patch:
        patch.setattr(_Live, "tell", lambda self, event: event.row and signal.raise_signal(signal.SIGINT))
        done = spikeless(line)
    assert done.code == 130
    assert "interrupted; the same command goes on" in done.out
    assert spikeless(line).code == 0


@pytest.mark.parametrize("name", ["[bold]", "a[/b]", "a b", "héllo"])
def test_a_folder_may_have_any_name(name, desk, spikeless):
    done = spikeless(f"train gpt2_nano $TINY --set steps=1 --out '{name}'")
    assert done.code == 0
    assert f"report: {name}/report.html" in done.out


@pytest.mark.parametrize("name", names_in("recipes"))
def test_a_dry_run_tells_the_cost_and_trains_nothing(name, tmp_path, monkeypatch, spikeless):
    monkeypatch.chdir(tmp_path)
    done = spikeless(f"train {name} --dry-run --device cpu")
    assert done.code == 0
    wanted = (
        "parameters",
        "tokens per step",
        "steps",
        "memory while training",
        "disk per checkpoint",
        "FLOPs per step",
    )
    for quantity in (*wanted, "time per step", "time in all", "measured"):
        assert quantity in done.out
    assert f"{find('recipes', name)().steps:,}" in done.out
    assert not list(tmp_path.iterdir())


# --- show, list, runs, report ---


def test_show_prints_the_configuration_and_what_changed(spikeless):
    done = spikeless("show gpt2_nano --with scaled_embed --set steps=3 --data 'text:[a-z]/[/b]*.txt'")
    assert done.code == 0
    assert '"steps": 3' in done.out
    table = done.out.partition("scaled_embed against gpt2_nano")[2]
    assert "model.embedding.multiplier" in table
    assert "text:[a-z]/[/b]*.txt" in table
    assert "no change against the plain gpt2_nano" in spikeless("show gpt2_nano").out


@pytest.mark.parametrize("room", ROOMS)
def test_list_names_every_part_with_what_it_is(room, spikeless):
    done = spikeless(f"list {room}")
    assert done.code == 0
    for name in names_in(ROOMS[room]):
        assert name in done.out
    assert len(done.out.splitlines()) >= 4 + len(names_in(ROOMS[room]))


def test_runs_and_report_find_runs_in_a_folder(finished, tmp_path, spikeless):
    assert "baseline" in spikeless(f"runs {finished.parent}").out
    done = spikeless(f"report {finished.parent} --out {tmp_path / 'new' / 'all.html'}")
    assert done.code == 0
    assert (tmp_path / "new" / "all.html").read_text().startswith("<!")
    shutil.copytree(finished, tmp_path / "some" / "deep" / "copy")
    (tmp_path / "some" / "broken").mkdir()
    (tmp_path / "some" / "broken" / "run.json").write_text("{")
    done = spikeless(f"runs {tmp_path / 'some'} --json -")
    assert (done.code, f"warning: left out: {tmp_path / 'some' / 'broken' / 'run.json'}" in done.err) == (0, True)
    (row,) = json.loads(done.out)
    assert row["folder"] == str(tmp_path / "some" / "deep" / "copy")
    assert row["val_bits_per_byte"] > 0


# --- compare ---


@pytest.fixture
def one_core(monkeypatch):
    """One process gets one thread: on a busy machine several wait for each other."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})


def test_compare_trains_each_arm_and_goes_on_when_run_again(desk, spikeless, one_core):
    line = "compare gpt2_nano --arms 'baseline; scaled_embed' $TINY --jobs 1 --out both"
    first = spikeless(line)
    assert first.code == 0
    for said in ("2 runs to train, 0 finished before: about ", "baseline", "scaled_embed", "report: both/report.html"):
        assert said in first.out
    folders = [desk / "both" / f"{arm}-lr0.001-1x16-seed0" for arm in ("baseline", "scaled_embed")]
    before = [(folder / "metrics.jsonl").read_text() for folder in folders]
    assert "--jobs 1" in (desk / "both" / "comparison.json").read_text()
    again = spikeless(line)
    assert (again.code, "to train" in again.out) == (0, False)
    assert [(folder / "metrics.jsonl").read_text() for folder in folders] == before
    assert (desk / "both" / "report.html").read_text().startswith("<!")


def test_compare_takes_a_grid_and_adds_seeds_to_it(desk, spikeless, one_core):
    (desk / "lambada.jsonl").write_text('{"text": "the cat sat on the mat"}\n')
    options = "--lrs 1e-3,0.01 --depths 1,2 --widths 8 --steps 2 --jobs 1 --out grid --lambada lambada.jsonl"
    tiny = "--tokenizer bytes --precision fp32 --device cpu --data 'text:notes/*.txt'"
    sizes = "--set model.num_heads=2 --set model.context_length=16 --set data.sequence_length=16"
    line = f"compare gpt2_nano --arms baseline {options} {tiny} {sizes} --set data.batch_size=4"
    line += " --set evaluation.tokens=64"
    done = spikeless(line)
    assert done.code == 0
    names = {f"baseline-lr{lr}-{depth}x8-seed0" for lr in ("0.001", "0.01") for depth in (1, 2)}
    assert {path.parent.name for path in desk.glob("grid/*/run.json")} == names
    assert all(steps_logged(desk / "grid" / name) == [0, 1, 2] for name in names)
    runs = json.loads((desk / "grid" / "comparison.json").read_text())["runs"]
    assert sum("lambada_accuracy" in run["scores"] for run in runs) == 2
    assert spikeless(f"{line} --add-seeds 1").code == 0
    assert {path.parent.name for path in desk.glob("grid/*/run.json")} == names | {
        name.replace("seed0", "seed1") for name in names
    }
    other = spikeless(line.replace("--steps 2", "--steps 3"))
    assert (other.code, "holds a run with another configuration" in other.err) == (2, True)


def test_a_comparison_with_a_run_that_explodes_is_a_result(desk, spikeless, one_core):
    done = spikeless("compare gpt2_nano --arms baseline --lrs 1e-3,1e30 $TINY --set gradients=none --jobs 1 --out boom")
    assert done.code == 0
    assert "[2/2] baseline-lr1e+30-1x16-seed0: unhealthy" in done.out
    assert status(desk / "boom" / "baseline-lr1e+30-1x16-seed0")["state"] == "unhealthy"


# --- export ---


def test_export_says_what_it_verified_and_the_run_goes_on_from_there(finished, desk, spikeless):
    done = spikeless(f"export {finished} --out model --dtype bf16")
    assert done.code == 0
    assert "read back with transformers" in done.out
    assert re.search(r"largest difference of a logit: \S+ \(tolerance \S+\)", done.out)
    assert "storing bf16 instead of fp32 changes a logit by up to" in done.out
    assert "exported: model" in done.out
    again = spikeless(f"export {finished} --out model")
    assert (again.code, "already exists" in again.err) == (2, True)
    assert spikeless("train llama_nano $TINY --init-from model --out second").code == 0
    assert spikeless("train llama_nano --init-from model --dry-run --device cpu").code == 0
    assert spikeless("export second --out third").code == 0


LAB = """
from dataclasses import dataclass
import torch
from spikeless.config import replace_at

class Doubled(torch.nn.Linear):
    def forward(self, x):
        return torch.nn.functional.linear(x, 2 * self.weight, self.bias)

class Merging(Doubled):
    def merged(self):
        return 2 * self.weight

@dataclass(frozen=True, kw_only=True)
class Mute:
    def build(self, d_in, d_out, bias):
        return Doubled(d_in, d_out, bias)

@dataclass(frozen=True, kw_only=True)
class Frank:
    def build(self, d_in, d_out, bias):
        return Merging(d_in, d_out, bias)

@dataclass(frozen=True, kw_only=True)
class Twice:
    frank: bool = True
    def __call__(self, run):
        return replace_at(run, {"model.attention.projection": Frank() if self.frank else Mute()})
"""


def test_a_part_of_the_users_own_is_exported_if_it_says_how_it_folds(desk, spikeless):
    (desk / "export_lab.py").write_text(LAB)
    assert spikeless("train gpt2_nano --with export_lab:Twice $TINY --out frank").code == 0
    refused = spikeless("export frank --out model")
    assert refused.code == 2
    advice = refused.err.partition("name it again: ")[2].strip()
    assert advice.startswith("--with export_lab:")
    assert spikeless(f"export frank --out as-advised {advice}").code == 0
    assert spikeless("export frank --out model --with export_lab:Twice").code == 0
    assert spikeless("train gpt2_nano --with 'export_lab:Twice(frank=false)' $TINY --out mute").code == 0
    refused = spikeless("export mute --out other --with export_lab:Twice")
    assert (refused.code, "cannot express model.attention.projection = Mute()" in refused.err) == (2, True)
    assert not (desk / "other").exists()


# --- generate ---


@pytest.mark.parametrize("options", ["", "--temperature 0", "--top-k 3", "--top-p 0.5 --seed 4", "--max-tokens 60"])
def test_generate_continues_the_prompt_and_repeats_itself(options, finished, spikeless):
    line = f"generate {finished} --prompt 'the cat' --max-tokens 12 {options}"
    one, other = spikeless(line), spikeless(line)
    assert one.code == 0
    assert one.out.startswith("the cat")
    assert one == other


def test_generate_takes_no_prompt_any_text_and_one_checkpoint(finished, spikeless):
    assert spikeless(f"generate {finished} --max-tokens 5").code == 0
    done = spikeless(f"generate {Checkpoints(finished).path(3)} --prompt '[bold]é 🐈' --max-tokens 5")
    assert done.out.startswith("[bold]é 🐈")


# --- as users start it ---


def test_the_version_is_told(spikeless):
    assert re.fullmatch(r"spikeless \d+\.\d+\.\d+\S*\n", spikeless("--version").out)


def test_help_names_every_verb(spikeless):
    done = spikeless("--help")
    assert done.code == 0
    for verb in ("train", "compare", "generate", "show", "list", "runs", "report"):
        assert verb in done.out


def test_the_command_in_a_process_of_its_own(desk):
    command = [sys.executable, "-c", "from spikeless.cli import main; main()"]
    bad = subprocess.run([*command, "show", "nope"], capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.startswith("error: no recipe is called 'nope'")


def test_a_broken_checkpoint_is_said_and_survived(desk, spikeless):
    assert spikeless("train gpt2_nano $TINY --set checkpoint.every=1 --out run").code == 0
    (Checkpoints(desk / "run").path(3) / "model.safetensors").write_bytes(b"")
    done = spikeless("generate run --max-tokens 3")
    assert done.code == 0
    assert done.err.startswith("warning: ")
    assert "using the one before it" in done.err


def test_the_session_is_left_as_it_was(spikeless):
    threads, default = torch.get_num_threads(), torch.get_default_dtype()
    spikeless("show gpt2_nano")
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, default)


def test_grids_of_one_folder_add_up_and_their_rates_are_reached(desk, spikeless):
    size = "--set model.num_layers=1 --set model.width=16 --set model.num_heads=2 --set data.sequence_length=16"
    tiny = f"--data 'text:notes/*.txt' --tokenizer bytes --device cpu {size} --set evaluation.tokens=64"
    grid = f"compare gpt2_nano {tiny} --jobs 1 --out grid"
    first = spikeless(f"{grid} --arms baseline --steps 2 --lrs 1e-2")
    assert (first.code, first.err.count("scaled in proportion")) == (0, 1)
    assert "warning: the warm-up of gpt2_nano, 50 steps of 500, is longer than 2 steps" in first.err
    assert "scaled in proportion (schedule.warmup_steps=1)" in first.out and "documents" in first.out
    rows = (desk / "grid" / "baseline-lr0.01-1x16-seed0" / "metrics.jsonl").read_text().splitlines()
    assert max(json.loads(row).get("lr", 0) for row in rows) == 1e-2
    assert spikeless(f"{grid} --arms baseline --steps 2 --lrs 3e-2").code == 0
    third = spikeless(f"{grid} --arms mlra --steps 2 --lrs 3e-2")
    assert "2 arms × 2 learning rates × 1 seed on gpt2_nano: 3 runs of 2 steps, none failed" in third.out
    plain = json.loads((desk / "grid" / "comparison.json").read_text())
    assert [run["run"][:-11] for run in plain["runs"]] == ["baseline-lr0.01", "baseline-lr0.03", "mlra-lr0.03"]
    assert plain["about"]["command"].count("\n") == 2 and plain["about"]["reached"] == 1
    assert "scaled in proportion" in plain["derived"]["warnings"][0]
    other = spikeless(f"{grid} --arms baseline --steps 3 --lrs 1e-3")
    assert (
        other.code == 2 and "of another study than this command asks for" in other.err and "steps: 2 -> 3" in other.err
    )
