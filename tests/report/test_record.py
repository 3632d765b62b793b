import math

import pytest

from spikeless.errors import UserError
from spikeless.report import read_run


def test_series_has_the_steps_at_which_a_quantity_was_logged(make_run):
    steps, values = make_run().series("val_loss")
    assert steps.tolist() == [0, 10, 20, 30, 40]
    assert values[0] == 7.6
    assert values[-1] == pytest.approx(3.1 + 4 * math.exp(-4))


def test_a_quantity_never_logged_is_empty(make_run):
    steps, values = make_run().series("no/such/key")
    assert steps.size == values.size == 0


def test_summary_of_a_finished_run(make_run):
    record = make_run()
    summary = record.summary()
    assert summary.final_val_loss == record.series("val_loss")[1][-1] == summary.best_val_loss
    assert summary.perplexity == pytest.approx(math.exp(summary.final_val_loss))
    assert summary.final_train_loss == pytest.approx(record.series("loss")[1][-10:].mean())
    assert (summary.max_grad_norm, summary.max_grad_norm_step) == (2.0, 1)
    assert summary.tev_raw == pytest.approx(0.024)
    assert (summary.tev_effective, summary.tev_relative) == (0.15, 1.2)
    assert summary.tokens_per_second == 5000
    assert (summary.steps, summary.state, summary.parameters) == (40, "finished", 1234567)
    assert not summary.failed
    assert summary.outcome == "finished"


def test_throughput_leaves_out_the_first_tenth(make_run):
    rows = [
        {"step": step, "loss": 1.0, "tokens_per_second": 1.0 if step <= 1 else float(step)} for step in range(1, 11)
    ]
    assert make_run(rows=rows).summary().tokens_per_second == 6.0


def test_non_finite_numbers_come_back_and_mark_the_run(make_run, training_rows):
    record = make_run(rows=training_rows(diverge=25), state="unhealthy")
    loss = record.series("loss")[1]
    assert math.isnan(loss[-1])
    assert record.series("grad_norm")[1][-1] == math.inf
    summary = record.summary()
    assert summary.failed
    assert summary.outcome == "diverged at step 25"
    assert (summary.max_grad_norm, summary.max_grad_norm_step) == (math.inf, 25)
    assert math.isnan(summary.final_train_loss)
    assert math.isfinite(summary.best_val_loss)


def test_a_run_that_recovers_from_nan_has_not_diverged(make_run, training_rows):
    rows = training_rows()
    rows[20]["loss"] = "NaN"
    summary = make_run(rows=rows).summary()
    assert summary.diverged_at is None
    assert not summary.failed


def test_divergence_is_seen_without_a_status(make_run, training_rows):
    summary = make_run(rows=training_rows(diverge=25), state=None).summary()
    assert (summary.state, summary.diverged_at) == ("unknown", 25)


def test_an_unhealthy_run_fails_with_finite_losses_too(make_run):
    assert make_run(state="unhealthy").summary().failed


def test_huge_loss_has_infinite_perplexity(make_run):
    assert make_run(rows=[{"step": 1, "loss": 1e4, "val_loss": 1e4}]).summary().perplexity == math.inf


@pytest.mark.parametrize("tail", ['{"step": 41, "lo', '{"step"', "{", '{"step": 41, "loss": 3.0, "label": "caf\\'])
def test_half_written_last_line_is_ignored(make_run, tail):
    assert make_run(tail=tail).summary().steps == 40


def test_a_damaged_line_in_the_middle_is_named(write_run):
    folder = write_run(tail='{"step": 41, "lo\n{"step": 42, "loss": 3.0}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 42"):
        read_run(folder)


def test_a_resumed_run_replaces_the_abandoned_steps(make_run):
    rows = [{"step": step, "loss": 1.0} for step in (1, 2, 3, 4)] + [{"step": 3, "loss": 2.0}]
    steps, loss = make_run(rows=rows).series("loss")
    assert steps.tolist() == [1, 2, 3]
    assert loss.tolist() == [1.0, 1.0, 2.0]


def test_a_run_without_metrics_is_all_empty(write_run):
    folder = write_run(rows=[], state="unhealthy")
    (folder / "metrics.jsonl").unlink()
    (folder / "environment.json").unlink()
    summary = read_run(folder).summary()
    assert (summary.steps, summary.final_val_loss, summary.max_grad_norm) == (0, None, None)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"not a run folder.*no run\.json.*spikeless train"):
        read_run(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"recipe": "deep_nano"}'])
def test_damaged_run_json_is_refused(write_run, content):
    folder = write_run()
    (folder / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run\.json"):
        read_run(folder)
