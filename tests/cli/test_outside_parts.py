"""Minimal parts from outside the package, one for each slot: trained, resumed, used, and never imported unasked."""

import json
import sys

import pytest

PARTS = '''
"""Each has what its protocol asks for, and no more."""

from dataclasses import dataclass

import torch

from spikeless.config import replace_at


@dataclass(frozen=True)
class SGD:
    lr: float = 0.1

    def build(self, named_parameters):
        return torch.optim.SGD([parameter for _, parameter in named_parameters])


@dataclass(frozen=True)
class Halving:
    def factor(self, step, steps):
        return 0.5**step


@dataclass(frozen=True)
class Sign:
    def apply(self, gradients, grad_norm):
        for gradient in gradients:
            gradient.sign_()


@dataclass(frozen=True)
class Norm:
    def build(self, width):
        module = torch.nn.Module()
        module.gain = torch.nn.Parameter(torch.full((width,), 3.0))
        module.register_buffer("share", torch.tensor(0.5), persistent=False)
        module.forward = lambda x: torch.nn.functional.normalize(x, dim=-1) * module.gain * module.share
        return module


class _Table(torch.nn.Module):
    def __init__(self, vocab_size, width):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(vocab_size, width))

    def transform(self, rows):
        return rows.tanh() * 2


@dataclass(frozen=True)
class Embedding:
    def build(self, vocab_size, width):
        return _Table(vocab_size, width)


class _Ramp(torch.nn.Module):
    def __init__(self, length, width):
        super().__init__()
        self.register_buffer("table", torch.linspace(0, 1, length)[:, None].repeat(1, width))

    def vectors(self, positions):
        return self.table[positions]

    def rotation(self, positions):
        return None


@dataclass(frozen=True)
class Positions:
    def build(self, context_length, width, head_dim):
        return _Ramp(context_length, width)


class _Mean(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mix = torch.nn.Linear(width, width)

    def forward(self, x, rotation, cache, mask=None):
        return self.mix(x.cumsum(1) / torch.arange(1, x.shape[1] + 1, device=x.device)[:, None])


@dataclass(frozen=True)
class Attention:
    def build(self, width, num_heads, num_kv_heads):
        return _Mean(width)


@dataclass(frozen=True)
class Projection:
    def build(self, d_in, d_out, bias):
        return torch.nn.Sequential(torch.nn.Linear(d_in, d_out, bias=bias))


@dataclass(frozen=True)
class FeedForward:
    def build(self, width):
        return torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, width))


class _Parallel(torch.nn.Module):
    def __init__(self, norm, attention, ffn):
        super().__init__()
        self.norm, self.attention, self.ffn = norm, attention, ffn

    def forward(self, x, rotation, cache, mask=None):
        y = self.norm(x)
        return x + self.attention(y, rotation, cache, mask) + self.ffn(y)


@dataclass(frozen=True)
class Residual:
    def build(self, norm, width, attention, ffn):
        return _Parallel(norm.build(width), attention, ffn)


@dataclass(frozen=True)
class Init:
    def std(self, role, d_out, d_in, *, width, num_layers):
        return 0.05


@dataclass(frozen=True)
class Boundaries:
    def documents(self, tokens, end_of_text, beginning):
        return None


class Logger:
    def __init__(self, folder, last_step):
        self.file = (folder / "outside.txt").open("a")

    def log(self, row):
        self.file.write(f"{row['step']}\\n")

    def flush(self):
        self.file.flush()

    def close(self):
        self.file.close()


def largest(snapshot):
    return {"largest": snapshot.embedding.abs().max()}


@dataclass(frozen=True)
class Wider:
    """A technique without a head."""

    by: int = 3

    def __call__(self, run):
        return replace_at(run, {"model.ffn": FeedForward()})
'''

QUICK = (
    "--tokenizer bytes --data 'text:notes/*.txt' --precision fp32 --device cpu --set model.num_layers=1 "
    "--set model.width=16 --set model.num_heads=2 --set model.context_length=16 --set data.sequence_length=16 "
    "--set data.batch_size=4 --set evaluation.tokens=64"
)
TRAINING = (
    "--set optim=my_parts:SGD --set schedule=my_parts:Halving --set gradients=my_parts:Sign "
    "--set init.scheme=my_parts:Init --set data.boundaries=my_parts:Boundaries --set metrics.every=1 "
    """--set 'metrics.diagnostics=["my_parts:largest"]' --set 'metrics.loggers=["my_parts:Logger"]'"""
)
SLOTS = ("embedding", "positions", "norm", "attention", "ffn", "residual")
NAMES = {"ffn": "FeedForward"}
MODEL = " ".join(f"--set model.{slot}=my_parts:{NAMES.get(slot, slot.capitalize())}" for slot in SLOTS)
MODEL += " --with 'my_parts:Wider(by=2)'"


@pytest.fixture
def parts(desk):
    """Makes `my_parts` importable where the user stands; forgets what was imported."""
    (desk / "my_parts.py").write_text(PARTS)
    yield desk
    sys.modules.pop("my_parts", None)


def forget(folder):
    """As a new process, in which importing the module is an error."""
    sys.modules.pop("my_parts", None)
    (folder / "my_parts.py").write_text("raise RuntimeError('imported')")


def rows(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in lines]


INFERENCE = (
    "eval {run} --data 'text:notes/*.txt' --device cpu",
    "generate {run} --prompt note --max-tokens 20",
    "tev {run}",
    "audit {run} --seq 16 --fail-on never",
)


def test_what_only_training_needs_is_not_needed_to_use_the_model(parts, spikeless):
    done = spikeless(f"train gpt2_nano {QUICK} {TRAINING} --steps 3 --out run")
    assert done.code == 0, done.err
    assert [row["largest"] > 0 for row in rows(parts / "run")] == [True] * 4
    assert [row["lr"] for row in rows(parts / "run")[1:]] == [0.1, 0.05, 0.025]
    assert (parts / "run" / "outside.txt").read_text().split() == ["0", "1", "2", "3"]
    forget(parts)
    for line in (*INFERENCE, "export {run} --out exported", "report {run}", "runs ."):
        done = spikeless(line.format(run="run"))
        assert done.code == 0, done.err
    refused = spikeless("train --resume --out run --steps 4")
    assert (refused.code, "add --with" in refused.err or "--with my_parts:" in refused.err) == (2, True)


def test_a_model_of_outside_parts_is_trained_resumed_and_used(parts, spikeless):
    line = f"train gpt2_nano {QUICK} {MODEL} {TRAINING} --set checkpoint.every=1"
    for options in ("--out whole --steps 4", "--out run --steps 2", "--out run --steps 4 --resume"):
        done = spikeless(f"{line} {options}")
        assert done.code == 0, done.err
    assert [row["loss"] for row in rows(parts / "run")[1:3]] == [row["loss"] for row in rows(parts / "whole")[1:3]]
    by_heart = (parts / "my_parts.py").read_text()
    for template in INFERENCE:
        forget(parts)
        refused = spikeless(template.format(run="run"))
        if template.startswith("tev"):  # the raw reading needs no part
            assert (refused.code, "unknown" in refused.out) == (0, True)
            advice = ["--with", "my_parts:Norm"]
        else:
            assert refused.code == 2, template
            advice = refused.err.partition("name it again: ")[2].split()[:2]
        (parts / "my_parts.py").write_text(by_heart)
        assert advice[0] == "--with"
        done = spikeless(f"{template.format(run='run')} {' '.join(advice)}")
        assert done.code == 0, done.err
    refused = spikeless("export run --out exported --with my_parts:Norm")
    assert (refused.code, "cannot be" in refused.err) == (2, True)


def test_a_run_of_outside_parts_goes_on_from_its_folder_when_they_are_named(parts, spikeless):
    settings = "--set model.norm=my_parts:Norm --set optim=my_parts:SGD"
    assert spikeless(f"train gpt2_nano $TINY {settings} --out run --set steps=2").code == 0
    refused = spikeless("train --resume --out run --steps 3")
    advice = refused.err.partition("name it again: ")[2].split()[:2]
    done = spikeless(f"train --resume --out run --steps 3 {' '.join(advice)}")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("optim=my_parts:Halving", "my_parts:Halving is no Optimizer: it lacks 'lr' and 'build'"),
        ("schedule=my_parts:SGD", "my_parts:SGD is no Schedule: it lacks 'factor'"),
        ("gradients=clip_norm+my_parts:Norm", "my_parts:Norm is no GradientTransform: it lacks 'apply'"),
        ("model.embedding.norm=my_parts:Init", "my_parts:Init is no Norm: it lacks 'build'"),
        ("model.embedding=my_parts:Norm", "model.embedding: Norm cannot be built here: too many positional arguments"),
    ],
)
def test_a_part_of_another_kind_is_refused(parts, spikeless, setting, said):
    refused = spikeless(f"show gpt2_nano --set '{setting}'")
    assert (refused.code, said in refused.err) == (2, True), refused.err
