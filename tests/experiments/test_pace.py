"""How many processes, and how long it will take."""

import pytest
import torch

from spikeless.config import replace_at
from spikeless.experiments import pace
from spikeless.experiments.grid import Axes, plan
from spikeless.experiments.pace import Pace, measure_pace, reading_seconds


@pytest.fixture
def timed(monkeypatch):
    """So many cores, and a step that takes these seconds with one thread and with all."""
    asked = []

    def set_up(cores, alone, together):
        def seconds(run, threads):
            asked.append((run.model.num_layers, threads))
            return alone if threads == 1 else together

        monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
        monkeypatch.setattr(pace, "_pass_seconds", seconds)
        return asked

    return set_up


@pytest.fixture
def cells(tiny_run, tmp_path):
    run = replace_at(tiny_run("gpt2"), {"device": "cpu", "precision": "fp32", "schedule.warmup_steps": 1})
    return plan(run, "baseline; mlra", tmp_path, Axes(depths=(2, 4, 1), seeds=2))


@pytest.mark.parametrize(
    ("cores", "alone", "together", "jobs", "threads"),
    [
        (2, 1.0, 0.6, 2, 1),  # two steps in 1.0 s instead of 1.2 s
        (2, 1.0, 0.4, 1, 2),
        (8, 1.0, 0.2, 8, 1),
        (8, 1.0, 0.12, 1, 8),
        (1, 1.0, 1.0, 1, 1),
        (64, 1.0, 0.9, 64, 1),  # of twelve runs: more may be added to the grid
    ],
)
def test_what_trains_most_tokens_a_second_is_taken(cores, alone, together, jobs, threads, cells, timed):
    asked = timed(cores, alone, together)
    found = measure_pace(cells)
    assert (found.jobs, found.threads) == (jobs, threads)
    assert {(4, 1), (4, cores)} <= set(asked[:2]), "the largest shape decides"
    assert found.pass_seconds == dict.fromkeys([(1, 32), (2, 32), (4, 32)], alone if threads == 1 else together)
    assert f"{alone:.3g} s with one thread" in found.source


@pytest.mark.parametrize(
    ("asked", "cores", "jobs", "threads"), [(3, 8, 3, 2), (1, 8, 1, 8), (50, 8, 50, 1), (2, 1, 2, 1)]
)
def test_as_many_processes_as_asked_share_the_cores(asked, cores, jobs, threads, cells, timed):
    timed(cores, 1.0, 0.9)
    found = measure_pace(cells, asked)
    assert (found.jobs, found.threads, found.source) == (jobs, threads, "as asked")


def test_a_gpu_gets_one_process(cells, timed, monkeypatch):
    timed(8, 1.0, 0.9)
    monkeypatch.setattr(pace, "resolve_device", lambda _: torch.device("cuda"))
    assert measure_pace(cells).jobs == 1
    assert measure_pace(cells, 2).jobs == 2


def test_a_long_run_takes_as_much_longer(tiny_run, tmp_path):
    changes = {"steps": 100, "evaluation.every": 0, "evaluation.tokens": 6 * 8 * 32}
    run = replace_at(tiny_run("gpt2"), changes | {"data.batch_size": 8})
    [cell] = plan(run, "baseline", tmp_path, None, ["metrics.every=0"])
    one = Pace(jobs=2, threads=1, pass_seconds={(2, 32): 0.5}, source="")
    steps, evaluations = 1.2 * 100 * 0.5, 2 * 6 / 3 * 0.5
    assert one.seconds(cell) == pytest.approx(steps + evaluations)
    [read] = plan(run, "baseline", tmp_path, None, ["metrics.every=20", "evaluation.every=50"])
    assert one.seconds(read) == pytest.approx(steps + 2 * evaluations + 3 * 5 * 0.5)
    assert one.total([cell]) == one.seconds(cell)
    assert one.total([cell] * 6) == pytest.approx(3 * one.seconds(cell))
    assert one.total([]) == 0


def test_a_step_is_timed_and_the_session_left_as_it_was(cells):
    threads = torch.get_num_threads()
    before = torch.get_rng_state()
    found = measure_pace(cells, 1)
    assert set(found.pass_seconds) == {(1, 32), (2, 32), (4, 32)} and min(found.pass_seconds.values()) > 0
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), before)


def test_every_diagnostic_that_reads_something_at_the_start_is_timed(cells):
    run = cells[0].run
    seconds = reading_seconds(run)
    assert set(run.metrics.diagnostics) - set(seconds) == {"update_norm", "gradient_variance_free"}
    assert all(0 < each < 10 for each in seconds.values())
    assert seconds["gradient_variance_exact"] > seconds["hidden_variance"], "four passes against one"
