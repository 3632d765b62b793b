"""Which runs a comparison is made of, and where they go."""

import dataclasses
import itertools

import pytest

from spikeless.config import replace_at
from spikeless.errors import UserError
from spikeless.experiments.grid import (
    DIAGNOSTICS,
    Axes,
    interleaved,
    parse_arms,
    parse_numbers,
    plan,
    resolved,
    with_fitting_warmup,
)


@pytest.fixture
def run(tiny_run):
    return replace_at(tiny_run("gpt2"), {"schedule.warmup_steps": 1})


def test_one_seed_of_everything_comes_before_the_next(run, tmp_path):
    axes = Axes(lrs=(0.1, 0.01), depths=(3, 1), widths=(16, 8), seeds=2)
    cells = plan(run, "mlra(rank=2); baseline", tmp_path, axes)
    first, second = cells[:16], cells[16:]
    assert {cell.run.seed for cell in first} == {0} and {cell.run.seed for cell in second} == {1}
    places = [(*cell.shape, cell.arm, cell.run.optim.lr) for cell in first]
    assert places == [(*cell.shape, cell.arm, cell.run.optim.lr) for cell in second]
    assert places == [
        (depth, width, arm, lr)
        for depth in (3, 1)
        for width in (16, 8)
        for arm in ("mlra(rank=2)", "baseline")
        for lr in (0.1, 0.01)
    ]
    assert cells[0].place == {
        "arm": "mlra(rank=2)",
        "lr": 0.1,
        "depth": 3,
        "width": 16,
        "seed": 0,
        "run": "mlra_rank=2-lr0.1-3x16-seed0",
    }


def test_an_empty_axis_is_as_the_run_has_it(run, tmp_path):
    [cell] = plan(replace_at(run, {"seed": 7, "optim.lr": 0.25}), "baseline", tmp_path)
    assert cell.folder == tmp_path / "baseline-lr0.25-2x32-seed7"
    assert (cell.shape, cell.run.optim.lr, cell.run.seed) == ((2, 32), 0.25, 7)


def test_techniques_see_the_sizes_of_the_axes(run, tmp_path):
    cells = plan(run, "scaled_embed", tmp_path, Axes(widths=(16, 64)), ["model.num_heads=2"])
    assert [cell.run.model.embedding.multiplier for cell in cells] == [4, 8]
    assert {cell.run.model.num_heads for cell in cells} == {2}


def test_names_are_unique_and_plain(run, tmp_path):
    lrs = (0.001, 0.0010000001, 1e-30, 123456.75)  # some of which are one in six digits
    arms = "baseline; mlra; mlra(rank=4); mlra(init=factor,rank=4); mlra(rank=4)+scaled_embed"
    names = [cell.folder.name for cell in plan(run, arms, tmp_path, Axes(lrs=lrs, depths=(1, 11), seeds=12))]
    assert len(set(names)) == len(names) == 5 * 4 * 2 * 12
    assert not set("".join(names)) & set("()/'\" ;:")


def test_two_runs_never_share_a_folder(run, tmp_path, monkeypatch):
    monkeypatch.setattr("spikeless.experiments.grid.label_of", lambda run: "a(b)" if run.techniques else "a[b]")
    with pytest.raises(UserError, match=r"two runs would go to .*a_b-lr0.001-2x32-seed0"):
        plan(run, "baseline; mlra", tmp_path)


# --- what a comparison measures ---


def test_what_is_measured_is_set_only_where_it_is_not_named(run, tmp_path):
    [cell] = plan(run, "baseline", tmp_path, None, ["steps=80", "checkpoint.keep_last=5"])
    assert (cell.run.metrics.every, cell.run.metrics.loggers) == (10, ())
    assert cell.run.metrics.diagnostics == DIAGNOSTICS
    assert (cell.run.checkpoint.keep_last, cell.run.checkpoint.keep_best) == (5, 0)
    named = ["metrics.every=3", 'metrics.diagnostics=["tev"]', 'metrics.loggers=["tensorboard"]', "steps=4"]
    [cell] = plan(run, "mlra", tmp_path, None, [*named, " checkpoint.keep_best = 2"])
    assert (cell.run.metrics.every, cell.run.metrics.diagnostics) == (3, ("tev",))
    assert (cell.run.metrics.loggers, cell.run.checkpoint.keep_best) == (("tensorboard",), 2)
    [cell] = plan(run, "mlra", tmp_path, None, ["steps=4"])
    assert cell.run.metrics.every == 1


@pytest.mark.parametrize(("batch", "exact"), [(4, True), (6, False), (2, False), (12, True)])
def test_the_exact_gradient_variance_needs_four_equal_parts(batch, exact, run, tmp_path):
    [cell] = plan(run, "baseline", tmp_path, None, [f"data.batch_size={batch}"])
    assert ("gradient_variance_exact" in cell.run.metrics.diagnostics) is exact
    assert len(cell.run.metrics.diagnostics) == len(DIAGNOSTICS) - (not exact)


# --- arms and numbers ---


@pytest.mark.parametrize(
    ("text", "arms"),
    [
        ("baseline", [[]]),
        (" baseline ; mlra; ", [[], ["mlra"]]),
        ("mlra(rank=16)+scaled_embed;baseline", [["mlra(rank=16)+scaled_embed"], []]),
    ],
)
def test_arms_are_parsed(text, arms):
    assert parse_arms(text) == arms


@pytest.mark.parametrize(
    ("text", "kind", "numbers"),
    [(None, float, ()), ("1e-3", float, (0.001,)), (" 3e-3, 1 ,.5", float, (0.003, 1.0, 0.5)), ("12, 6", int, (12, 6))],
)
def test_numbers_are_parsed(text, kind, numbers):
    assert parse_numbers(text, "--lrs", kind) == numbers


@pytest.mark.parametrize("text", ["", ",", "1e-3,", "1e-3 3e-3", "1e-3;3e-3", "ten", "1,,2", "0x10"])
def test_what_are_no_numbers_is_refused(text):
    with pytest.raises(UserError, match=r"--lrs '.*': write numbers separated by commas, for example 1e-3,3e-3,1e-2"):
        parse_numbers(text, "--lrs")
    with pytest.raises(
        UserError, match=r"--depths '.*': write whole numbers separated by commas, for example 12,24,48"
    ):
        parse_numbers(text, "--depths", int)


@pytest.mark.parametrize("text", ["1.5", "12.0", "1e2", "nan"])
def test_whole_numbers_are_whole(text):
    with pytest.raises(UserError, match="write whole numbers"):
        parse_numbers(text, "--widths", int)


@pytest.mark.parametrize("value", [0.0, -0.001, float("nan"), float("inf")])
def test_axes_hold_positive_numbers_once(value):
    with pytest.raises(UserError, match=r"--lrs: .* is out of range; use positive numbers"):
        Axes(lrs=(0.1, value))
    with pytest.raises(UserError, match="--depths names 12 more than once"):
        Axes(depths=(12, 6, 12))


def test_what_is_decided_once_is_in_every_cell(run, tmp_path):
    cells = resolved(plan(run, "baseline; mlra", tmp_path), "bf16", 300)
    assert {(cell.run.precision, cell.run.model.vocab_size) for cell in cells} == {("bf16", 300)}
    assert [dataclasses.replace(cell.run, precision="auto").techniques for cell in cells] == [(), ("mlra",)]


# --- turns ---


@pytest.mark.parametrize("jobs", [1, 2, 3, 4])
@pytest.mark.parametrize("arms", [["baseline"], ["baseline", "mlra"], ["baseline", "mlra", "scaled_embed"]])
def test_every_worker_meets_the_arms_in_turn(arms, jobs, run, tmp_path):
    """If all runs take as long, worker w takes every jobs-th cell; over six rates and two seeds none keeps an arm."""
    axes = Axes(lrs=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), seeds=2)
    cells = plan(run, "; ".join(arms), tmp_path, axes)
    turns = interleaved(cells, jobs)
    assert sorted(map(str, turns)) == sorted(map(str, cells))
    assert [cell.run.seed for cell in turns] == [0] * (len(cells) // 2) + [1] * (len(cells) // 2)
    for worker in range(jobs):
        own = [cell.arm for cell in turns[worker::jobs]]
        counts = [own.count(arm) for arm in arms]
        assert max(counts) - min(counts) <= len(arms), (worker, own)
        longest = max(len(list(group)) for _, group in itertools.groupby(own)) if len(arms) > 1 else 0
        assert longest <= 2


# --- a learning rate is reached ---


def test_a_warm_up_that_is_longer_than_the_steps_asked_for_keeps_its_share(run):
    run = replace_at(run, {"steps": 300, "schedule.warmup_steps": 50})
    fitted, said = with_fitting_warmup(run, ["steps=12"])
    assert fitted.schedule.warmup_steps == 2
    assert "50 steps of 300, is longer than 12 steps" in said and "schedule.warmup_steps=2" in said
    assert with_fitting_warmup(run, ["steps=1"])[0].schedule.warmup_steps == 1
    for enough in (["steps=50"], ["steps=1000"], [], ["optim.eps=1e-6"]):
        assert with_fitting_warmup(run, enough) == (run, "")
    for own in ("schedule.warmup_steps=50", "schedule=wsd", " schedule.final = 0.2"):
        assert with_fitting_warmup(run, ["steps=12", own]) == (run, ""), "what the user says is not changed"


@pytest.mark.parametrize(
    ("arms", "settings", "message"),
    [
        ("mlra", ["steps=10", "schedule.warmup_steps=50"], r"mlra: in 10 steps .* comes to 0.2 of its peak only"),
        ("baseline", ["steps=10", "schedule=wsd"], r"schedule.warmup_steps=100\), .*; use schedule.warmup_steps=1, at"),
        ("baseline", ["steps=4", "schedule.warmup_steps=5"], r"or 5 steps or more"),
    ],
)
def test_a_rate_that_is_never_reached_is_refused(arms, settings, message, run, tmp_path):
    with pytest.raises(UserError, match=message):
        plan(run, arms, tmp_path, Axes(lrs=(0.1, 0.2)), settings)


def test_a_warm_up_that_ends_with_the_last_step_is_long_enough(run, tmp_path):
    assert plan(run, "baseline", tmp_path, None, ["steps=4", "schedule.warmup_steps=4"])
