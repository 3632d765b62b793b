"""Processes at work for a grid: the same numbers as one process, and no death of any loses anything."""

import contextlib
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
import types
from dataclasses import dataclass, replace

import pytest
import torch

from spikeless.config import replace_at
from spikeless.errors import UserError
from spikeless.experiments.cell import MemoryMeter, outcome_at
from spikeless.experiments.compare import compare
from spikeless.experiments.grid import DIAGNOSTICS, plan
from spikeless.experiments.pace import warm_up
from spikeless.experiments.workers import train_cells

ARMS = "baseline; mlra; small_init"


@pytest.fixture
def cells(small_run, tmp_path):
    """Three runs that are long enough to be disturbed."""
    return plan(replace_at(small_run, {"model.vocab_size": 257, "steps": 2000}), ARMS, tmp_path)


def states(cells):
    return [outcome_at(cell).state for cell in cells]


def when_both_work(do):
    """A watch that calls `do` once, when two runs have sent a row."""
    at_work = set()

    def watch(event):
        if event.row is not None and event.cell.arm not in at_work:
            at_work.add(event.cell.arm)
            if len(at_work) == 2:
                do()

    return watch


def test_two_workers_compute_what_one_process_does_and_one_that_dies_takes_its_run_only(
    small_run, tmp_path, watching, rows, timeless
):
    def kill_the_second():
        max(multiprocessing.active_children(), key=lambda child: int(child.name.rpartition("-")[2])).kill()

    def go(folder, jobs, watch=None):
        run = replace_at(small_run, {"steps": 40, "checkpoint.every": 10})
        return compare(run, ARMS, tmp_path / folder, jobs=jobs, watch=watch).outcomes

    watch = watching(when_both_work(kill_the_second))
    first = go("two", jobs=2, watch=watch)
    assert [each.state for each in first] == ["finished", "crashed", "finished"]
    assert first[1].failed and first[1].message == "its process died (SIGKILL, out of memory?)"
    assert {event.cell.arm for event in watch.events if event.row} == {"baseline", "mlra", "small_init"}
    assert not multiprocessing.active_children()
    whole = go("one", jobs=1)
    assert timeless(first[::2]) == timeless(whole[::2])
    for name in (each.run for each in first[::2]):
        one, other = rows(tmp_path / "one" / name), rows(tmp_path / "two" / name)
        assert [[row.get("loss"), row.get("val_loss")] for row in one] == [
            [row.get("loss"), row.get("val_loss")] for row in other
        ]
    kept = (tmp_path / "two" / first[0].run / "metrics.jsonl").stat().st_mtime_ns
    assert timeless(go("two", jobs=1)) == timeless(whole)
    assert (tmp_path / "two" / first[0].run / "metrics.jsonl").stat().st_mtime_ns == kept


def test_a_worker_that_dies_while_it_scores_takes_these_scores_only(small_run, tmp_path, watching, timeless):
    begun, kill = [], True

    def kill_the_first(event):
        if kill and watch.scored and event.scores is None and event.row is None:
            begun.append(event.cell.folder.name)
            if len(begun) == 2:  # both are at work; the one that began with the first training began with this scoring
                min(multiprocessing.active_children(), key=lambda child: int(child.name.rpartition("-")[2])).kill()

    watch = watching(kill_the_first)

    def go():
        run = replace_at(small_run, {"evaluation.tokens": 20_000})  # long enough to be disturbed
        return compare(run, ARMS, tmp_path / "grid", jobs=2, watch=watch).outcomes

    first = go()
    assert len(watch.scored) == 3
    assert sum(bool(each.scores) for each in first) == 2
    unscored, kill = [each.run for each in first if not each.scores], False
    again = go()
    assert watch.scored == unscored
    assert all(each.scores["perplexity"] > 1 for each in again)


def test_sigterm_lets_runs_save_themselves(cells, sigterm):
    assert train_cells(cells, 2, 1, when_both_work(sigterm)) is False
    assert states(cells) == ["interrupted", "interrupted", "planned"]
    for cell in cells[:2]:
        step = json.loads((cell.folder / "status.json").read_text())["step"]
        assert 0 < step < 2000
        assert (cell.folder / "checkpoints" / "latest").read_text().strip() == f"step-{step:08d}"
    assert not multiprocessing.active_children()


def test_workers_that_are_stopped_before_they_listen_have_not_crashed(cells, sigterm):
    told = []

    def watch(event):
        told.append(event)
        if len(told) == 2:  # both are hired, and import
            sigterm()

    assert train_cells(cells, 2, 1, watch) is False
    assert [event.outcome.state for event in told if event.outcome] == ["planned", "planned"]


def test_what_would_stop_every_run_is_said_and_the_others_save_themselves(cells):
    cells[1].folder.write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write to .*mlra"):
        train_cells(cells, 2, 1, lambda event: None)
    assert states(cells)[0] in ("interrupted", "planned")
    assert not cells[2].folder.exists()


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """A part that is known to this process only, as from a notebook."""

    def factor(self, step, steps):
        return 1.0


def test_workers_that_cannot_begin_are_an_error_and_no_crash(cells, monkeypatch):
    module = types.ModuleType("only_here")
    module.Unknown = Unknown
    monkeypatch.setitem(sys.modules, "only_here", module)
    monkeypatch.setattr(Unknown, "__module__", "only_here")
    run = replace_at(cells[0].run, {"schedule": Unknown()})
    told = []
    with pytest.raises(UserError, match="a worker process could not start"):
        train_cells([replace(cells[0], run=run), cells[1]], 2, 1, told.append)
    assert not [event for event in told if event.outcome and event.outcome.state == "crashed"]


PARENT = """
import multiprocessing, pickle, sys
from spikeless.experiments.workers import train_cells

def watch(event):
    if event.row:
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)

if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        train_cells(pickle.load(file), 2, 1, watch)
"""


@pytest.mark.slow
def test_workers_whose_parent_is_killed_end_by_themselves(cells, tmp_path):
    (tmp_path / "cells").write_bytes(pickle.dumps(cells))
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, str(tmp_path / "parent.py"), str(tmp_path / "cells")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        children = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(children) == 2
    deadline = time.monotonic() + 60
    while alive := [pid for pid in children if is_alive(pid)]:
        assert time.monotonic() < deadline, f"{alive} went on without a parent"
        time.sleep(0.1)


def is_alive(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


# --- warm before it is measured ---


def test_a_process_has_done_a_step_of_each_arm_and_shape_before_it_measures_one(small_run, tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr("spikeless.experiments.cell.warm_up", lambda run: order.append(("warm", run.techniques)))
    reset = MemoryMeter.reset
    monkeypatch.setattr(MemoryMeter, "reset", lambda meter: (order.append("measure"), reset(meter))[1])
    compare(replace_at(small_run, {"steps": 1}), "baseline; mlra", tmp_path, lrs=[1e-3, 1e-2], jobs=1)
    warm, cold = ("warm", ()), ("warm", ("mlra",))
    assert order == [warm, "measure", cold, "measure", "measure", "measure"]


def test_a_warm_up_leaves_no_trace(small_run):
    run = replace_at(small_run, {"model.vocab_size": 257, "metrics.diagnostics": DIAGNOSTICS})
    state = torch.get_rng_state()
    warm_up(run)
    assert torch.equal(torch.get_rng_state(), state)
