"""Which runs a comparison is made of, and where they go."""

import dataclasses
import json

import pytest

from spikeless.config import paths, replace_at, to_dict
from spikeless.errors import UserError
from spikeless.experiments.grid import (
    DIAGNOSTICS,
    Axes,
    config_hash,
    hash_of,
    parse_arms,
    parse_numbers,
    plan,
    resolved,
)


@pytest.fixture
def run(tiny_run):
    return tiny_run("gpt2")


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


# --- the hash of a configuration ---


def test_any_field_changes_the_hash(run):
    """Every leaf of the whole run, one at a time."""
    known, seen = hash_of(run), set()
    for path in paths(run):
        value = run
        for name in path.split("."):
            value = getattr(value, name, None)
        other = _another(value)
        if other is None:
            continue
        try:
            changed = replace_at(run, {path: other})
        except (UserError, ValueError, TypeError):
            continue
        assert hash_of(changed) != known, path
        assert hash_of(replace_at(changed, {path: value})) == known
        seen.add(path)
    assert {"seed", "steps", "optim.lr", "data.spec", "metrics.every", "precision", "model.tied", "recipe"} <= seen
    assert len(seen) > 30


def _another(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 2 + 1 if isinstance(value, int) else value / 2 + 0.001
    return "bf16" if value == "auto" else f"{value}x" if isinstance(value, str) else None


def test_the_hash_is_that_of_what_is_stored(run):
    stored = json.loads(json.dumps(to_dict(run)))
    assert config_hash(stored) == hash_of(run)
    assert config_hash(dict(reversed(stored.items()))) == hash_of(run)


def test_what_is_decided_once_is_in_every_cell(run, tmp_path):
    cells = resolved(plan(run, "baseline; mlra", tmp_path), "bf16", 300)
    assert {(cell.run.precision, cell.run.model.vocab_size) for cell in cells} == {("bf16", 300)}
    assert [dataclasses.replace(cell.run, precision="auto").techniques for cell in cells] == [(), ("mlra",)]
