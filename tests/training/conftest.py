"""Runs that take a second: a tiny model on a small text."""

import random
import shutil

import pytest

from spikeless.config import replace_at
from spikeless.run import RunConfig
from spikeless.training.checkpoints import Checkpoints
from spikeless.training.loop import train


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder of small text files, as a data spec."""
    folder = tmp_path_factory.mktemp("corpus")
    random.seed(0)
    words = [f"word{i}" for i in range(50)]
    for number in range(40):
        (folder / f"{number}.txt").write_text(" ".join(random.choices(words, k=200)))
    return f"text:{folder}/*.txt"


@pytest.fixture(scope="session")
def quick_run(tiny_run, corpus) -> RunConfig:
    """Twenty steps, a checkpoint every four."""
    return replace_at(
        tiny_run("gpt2"),
        {
            "model.vocab_size": None,
            "data.spec": corpus,
            "data.tokenizer": "bytes",
            "data.batch_size": 4,
            "precision": "fp32",
            "checkpoint.every": 4,
            "evaluation.every": 5,
            "evaluation.tokens": 256,
            "metrics.every": 3,
        },
    )


@pytest.fixture(scope="session")
def eight_steps(tmp_path_factory, quick_run):
    """A finished run with checkpoints at steps 4 and 8."""
    folder = tmp_path_factory.mktemp("eight") / "run"
    run = replace_at(quick_run, {"steps": 8})
    train(run, folder)
    return run, folder


@pytest.fixture
def halfway(tmp_path, eight_steps):
    """The same run with its last checkpoint gone, as if it had been killed after the one of step 4."""
    run, whole = eight_steps
    folder = shutil.copytree(whole, tmp_path / "halfway")
    shutil.rmtree(Checkpoints(folder).path(8))
    return run, folder
