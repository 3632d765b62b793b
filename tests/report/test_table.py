import io
import math

import pytest
from rich.console import Console

from spikeless.report import summary_rows, summary_table


def rendered(records) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(summary_table(records))
    return console.file.getvalue()


def test_one_seed_is_called_an_illustration(make_run):
    text = rendered([make_run("a"), make_run("b", "mlra")])
    assert "one seed: an illustration" in text
    assert "[nats" in text
    assert "/token]" in text
    assert "3.1733" in text


def test_a_failed_run_shows_as_failed_whatever_its_earlier_validation_loss(make_run, training_rows):
    record = make_run(rows=training_rows(diverge=25), state="unhealthy")
    (row,) = summary_rows([record])
    assert math.isfinite(record.summary().final_val_loss)
    assert row["val_loss"] == row["perplexity"] == math.inf
    assert "diverged at step 25" in rendered([record])


def test_seeds_of_one_arm_are_a_median(make_run):
    rows = [[{"step": 1, "loss": 3.0, "val_loss": loss}] for loss in (3.0, 5.0, 3.5)]
    records = [make_run(f"s{seed}", rows=each, seed=seed, steps=1) for seed, each in enumerate(rows)]
    (row,) = summary_rows(records)
    assert (row["val_loss"], row["runs"], row["seeds"]) == (3.5, 3, 3)
    assert "median over 3 seeds" in rendered(records)
    assert "3 finished" in rendered(records)


def test_a_failed_seed_counts_as_infinite_in_the_median(make_run):
    records = [make_run(f"s{seed}", seed=seed, state="unhealthy" if seed else "finished") for seed in range(3)]
    (row,) = summary_rows(records)
    assert (row["val_loss"], row["failed"]) == (math.inf, 2)


def test_the_same_seed_twice_is_one_seed(make_run):
    assert "one seed" in rendered([make_run("a"), make_run("b")])


def test_arms_of_one_label_are_told_apart_by_what_differs(make_run):
    records = [make_run(f"lr{lr}", optim={"lr": lr}) for lr in (1e-3, 1e-2)]
    assert [row["arm"] for row in summary_rows(records)] == [
        "baseline (optim.lr=0.001)",
        "baseline (optim.lr=0.01)",
    ]


def test_missing_quantities_are_dashes(make_run):
    record = make_run(rows=[{"step": 1, "loss": 3.0}])
    assert summary_rows([record])[0]["tev_raw"] is None
    assert "–" in rendered([record])


@pytest.mark.parametrize("label", ["[red]x", "[/]", "[link=http://x]y[/link]"])
def test_labels_are_not_markup(make_run, label):
    assert label in rendered([make_run(label=label)])
