"""The command line in this process, with its exit code, in a folder of its own with a small corpus."""

import shlex
import sys
import warnings
from typing import NamedTuple

import pytest

from spikeless.cli import main
from spikeless.errors import SpikelessWarning

TINY = (
    "--tokenizer bytes --precision fp32 --device cpu --set model.num_layers=1 --set model.width=16 "
    "--set model.num_heads=2 --set model.context_length=16 --set data.sequence_length=16 --set data.batch_size=4 "
    "--set schedule.warmup_steps=1 --set evaluation.tokens=64 --set metrics.loggers=() --set steps=3"
)


class Result(NamedTuple):
    code: int
    out: str
    err: str


def write_corpus(folder):
    folder.mkdir()
    for number in range(10):
        (folder / f"{number}.txt").write_text(f"note {number}: the cat sat on the mat, the dog on the rug. " * 8)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """The folder where the user stands, with a corpus in `notes`."""
    write_corpus(tmp_path / "notes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def spikeless(monkeypatch, capsys):
    """Runs a command line: `spikeless("list recipes")`; `$TINY` stands for a run of a blink."""

    def run(line: str) -> Result:
        line = line.replace("$TINY", f"{TINY} --data 'text:notes/*.txt'").replace("$SMALL", TINY)
        with monkeypatch.context() as patch, warnings.catch_warnings():
            patch.setattr(sys, "argv", ["spikeless", *shlex.split(line)])
            patch.setattr(sys, "path", list(sys.path))
            patch.setenv("COLUMNS", "200")
            warnings.simplefilter("always", SpikelessWarning)  # as for a user; in our tests it is an error
            code = 0
            try:
                main()
            except SystemExit as stop:
                code = stop.code or 0
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Result(code, out, err)

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of three steps; do not change it."""
    folder = tmp_path_factory.mktemp("finished")
    write_corpus(folder / "notes")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(sys, "argv", ["spikeless", *shlex.split(f"train gpt2_nano {TINY} --data 'text:notes/*.txt'")])
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
    return folder / "runs" / "gpt2_nano"
