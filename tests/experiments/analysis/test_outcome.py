"""A run as numbers: spikes, curves, and there and back through JSON."""

import json
import math

import numpy as np
import pytest

from spikeless.errors import UserError
from spikeless.experiments.analysis.outcome import (
    POINTS,
    Curve,
    Outcome,
    SpikeCount,
    count_spikes,
    outcome_of,
    read_outcome,
)
from spikeless.files import portable
from spikeless.report import read_run

INF, NAN = math.inf, math.nan
PLACE = {"arm": "mlra", "lr": 0.01, "depth": 2, "width": 8, "seed": 1, "run": "there"}


# --- spikes ---


def by_hand(values, window, width):
    """Share and number of spikes, in plain Python."""
    spiking = []
    for index in range(window, len(values)):
        before = [value for value in values[index - window : index] if math.isfinite(value)]
        mean = sum(before) / len(before) if before else 0.0
        std = math.sqrt(sum((value - mean) ** 2 for value in before) / len(before)) if before else INF
        spiking.append(not math.isfinite(values[index]) or values[index] > mean + width * std)
    starts = [each and not (index and spiking[index - 1]) for index, each in enumerate(spiking)]
    return sum(spiking) / len(spiking) if spiking else 0.0, sum(starts)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("width", [2.0, 6.0])
@pytest.mark.parametrize("window", [2, 10, 128])
def test_spikes_are_those_of_the_definition(seed, width, window):
    generator = np.random.default_rng(seed)
    values = generator.normal(3.0, 0.1, 300)
    values[generator.integers(0, 300, 12)] += generator.exponential(2.0, 12)
    values[generator.integers(0, 300, 6)] = [NAN, INF, -INF, NAN, INF, NAN]
    values[200:203] = 9.0
    found = count_spikes(values, window, width)
    score, count = by_hand(values.tolist(), window, width)
    assert (found.score, found.count) == (pytest.approx(score), count) and count > 2
    assert (found.window, found.width) == (window, width)


def test_a_spike_is_one_sided_and_neighbours_are_one():
    flat = np.array([1.0, 1.1] * 10)
    assert count_spikes(np.append(flat, -50.0), 8).count == 0
    assert count_spikes(np.concatenate([flat, [50.0], flat]), 8).count == 1
    assert count_spikes(np.concatenate([flat, [50.0, 900.0], flat, [50.0]]), 8).count == 2


def test_a_run_that_ends_without_numbers_spikes_once_for_many_steps():
    found = count_spikes(np.array([1.0, 1.1] * 10 + [NAN] * 5), 8)
    assert (found.count, found.score) == (1, pytest.approx(5 / 17))


@pytest.mark.parametrize(("steps", "window"), [(0, 2), (3, 2), (40, 10), (512, 128), (5000, 128)])
def test_the_window_is_a_quarter_of_the_run(steps, window):
    found = count_spikes(np.ones(steps))
    assert (found.window, found.score, found.count) == (window, 0.0, 0)


# --- a run folder ---


def folder_with(path, rows, state="finished", **status):
    path.mkdir()
    (path / "metrics.jsonl").write_text("".join(json.dumps(portable(row)) + "\n" for row in rows))
    config = {"steps": len(rows) - 1, "seed": 1, "optim": {"lr": 0.01}, "model": {"num_layers": 2, "width": 8}}
    run = {"recipe": "r", "label": "mlra", "techniques": ["mlra"], "diff": [], "config": config, "parameters": 99}
    (path / "run.json").write_text(json.dumps(run))
    (path / "status.json").write_text(json.dumps({"state": state, "step": len(rows) - 1} | status))
    return read_run(path)


def rows_of(losses, **last):
    rows = [{"step": 0, "val_loss": 5.0, "tev/mean": 1.0, "hidden_variance/000": 2.0, "ignored": 1.0}]
    rows += [{"step": step, "loss": loss, "grad_norm": 1.0 + step} for step, loss in enumerate(losses, start=1)]
    rows[-1] |= last
    return rows


def test_the_outcome_of_a_run_that_ended_well(tmp_path):
    losses = [4.0 - 0.01 * step for step in range(200)]
    rows = rows_of(losses, **{"val_loss": 2.5, "tev/mean": 3.0, "update_norm": 0.125})
    rows[1]["update_norm"] = 0.5
    found = outcome_of(folder_with(tmp_path / "there", rows), peak_memory=7)
    assert {key: getattr(found, key) for key in PLACE} == PLACE
    assert (found.state, found.steps, found.parameters, found.peak_memory) == ("finished", 200, 99, 7)
    assert (found.initial_val_loss, found.final_val_loss, found.final_loss) == (5.0, 2.5, 2.5)
    assert found.final_train_loss == pytest.approx(sum(losses[-10:]) / 10)
    assert (found.max_grad_norm, found.max_update_norm) == (201.0, 0.5)
    assert found.spikes["loss"] == count_spikes(np.array(losses))
    assert set(found.curves) == {"loss", "grad_norm", "val_loss", "tev/mean", "hidden_variance/000", "update_norm"}
    assert found.curves["tev/mean"] == Curve(steps=(0, 200), values=(1.0, 3.0))
    assert (found.ended, found.failed) == (True, False)


def test_a_long_curve_is_the_means_of_buckets(tmp_path):
    losses = np.random.default_rng(0).normal(3, 1, 200)
    curve = outcome_of(folder_with(tmp_path / "there", rows_of(losses.tolist()))).curves["loss"]
    assert len(curve.steps) == len(curve.values) == POINTS
    assert curve.steps[-1] == 200 and sorted(set(curve.steps)) == list(curve.steps)
    for first, last, value in zip((0, *curve.steps), curve.steps, curve.values, strict=False):
        assert value == pytest.approx(losses[first:last].mean(), rel=1e-5)
    short = outcome_of(folder_with(tmp_path / "short", rows_of(losses[:5].tolist()))).curves["loss"]
    assert short.steps == (1, 2, 3, 4, 5) and short.values == pytest.approx(losses[:5], rel=1e-5)


def test_the_variance_of_a_layer_is_kept_at_the_ends(tmp_path):
    rows = rows_of([1.0] * 5)
    for row in rows:
        row |= {"hidden_variance/001": row["step"] + 0.5, "tev/std": row["step"] + 1.0}
    curves = outcome_of(folder_with(tmp_path / "there", rows)).curves
    assert curves["hidden_variance/001"] == Curve(steps=(0, 5), values=(0.5, 5.5))
    assert curves["tev/std"].steps == (0, 1, 2, 3, 4, 5)


def test_a_run_that_failed_has_an_infinite_loss(tmp_path):
    rows = rows_of([4.0, 5.0, NAN], grad_norm=INF)
    found = outcome_of(folder_with(tmp_path / "there", rows, "unhealthy", message="step 3: non-finite loss"))
    assert (found.final_val_loss, found.final_loss, found.diverged_at) == (INF, INF, 3)
    assert (found.failed, found.ended, found.message) == (True, True, "step 3: non-finite loss")
    assert found.max_grad_norm == INF and math.isnan(found.curves["loss"].values[-1])


@pytest.mark.parametrize(("state", "told"), [("interrupted", "interrupted"), ("running", "killed")])
def test_a_run_that_has_not_ended_has_no_final_loss(state, told, tmp_path):
    """One that says "running" and is held by no process was killed."""
    found = outcome_of(folder_with(tmp_path / "there", rows_of([4.0, 3.0], val_loss=3.5), state))
    assert (found.final_val_loss, found.ended, found.failed) == (None, False, False)
    with pytest.raises(ValueError, match=f"there has not ended: {told}"):
        _ = found.final_loss
    assert Outcome(**PLACE).state == "planned" and not Outcome(**PLACE).ended


def test_a_run_that_crashed_has_an_infinite_loss():
    crashed = Outcome(**PLACE, state="crashed")
    assert crashed.final_loss == INF and crashed.failed and crashed.ended


# --- JSON ---


FULL = Outcome(
    **PLACE,
    state="unhealthy",
    message="why",
    final_val_loss=INF,
    max_grad_norm=2.0,
    peak_memory=10**10,
    spikes={"loss": SpikeCount(score=0.25, count=2, window=8, width=6.0)},
    curves={"loss": Curve(steps=(1, 2, 3), values=(1.5, INF, -INF))},
    scores={"perplexity": 3.0},
)


@pytest.mark.parametrize("outcome", [FULL, Outcome(**PLACE)])
def test_an_outcome_comes_back_from_strict_json(outcome):
    text = json.dumps(portable(outcome.to_json()), allow_nan=False)
    assert read_outcome(json.loads(text)) == outcome


def test_what_is_no_number_comes_back_too():
    curve = Curve(steps=(1,), values=(NAN,))
    data = json.loads(json.dumps(portable(Outcome(**PLACE, curves={"loss": curve}).to_json())))
    assert data["curves"]["loss"]["values"] == ["NaN"]
    assert math.isnan(read_outcome(data).curves["loss"].values[0])


WRONG = [None, "x", [], {}, True, 1.5, {"a": "b"}, -1]


@pytest.mark.parametrize("name", FULL.to_json())
def test_a_damaged_field_is_refused_or_read_as_it_stands(name):
    good = json.loads(json.dumps(portable(FULL.to_json())))
    refused = 0
    for value in WRONG:
        try:
            found = getattr(read_outcome(good | {name: value}), name)
        except UserError as error:
            refused += "this is not the outcome of a run" in str(error)
            continue
        assert found == value and not isinstance(found, bool)
    assert refused >= len(WRONG) - 3


@pytest.mark.parametrize("data", [None, 3, "text", [], [1], {}, {"arm": "a"}, FULL.to_json() | {"unknown": 1}])
def test_what_is_no_outcome_is_refused(data):
    with pytest.raises(UserError, match="this is not the outcome of a run"):
        read_outcome(data)
