import io
import math

import pytest
from rich.console import Console

from spikeless.report import runs_table, summary_rows, summary_table, write_report


def rendered(records, width=160, table=summary_table) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table(records))
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


NUMBERS = {"val_loss": 3.1234, "val_bits_per_byte": 2.5678, "grad_norm": 1234567.0, "tokens_per_second": 1234567.0}


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_no_number_is_cut_and_what_is_left_out_is_said(width, make_run):
    rows = [{"step": 1, "loss": 3.0, "tev/mean": 0.0123, "tev/effective_mean": 0.4567, **NUMBERS}]
    records = [make_run(f"a/folder/of/a/long/name/{lr}", rows=rows, optim={"lr": lr}) for lr in (0.1, 0.2)]
    shown = {"perplexity": "22.7", "TEV raw": "0.0123", "TEV effective": "0.4567", "parameters": "1.23M"}
    shown |= {"tokens/s": "1,234,567", "largest grad norm": "1.23e6"}
    for text in (rendered(records, width), rendered(records, width, lambda each: runs_table(each, each[0].folder))):
        assert max(map(len, text.splitlines())) <= width
        assert text.count("3.1234") == text.count("2.5678") == 2
        left_out = " ".join(text.partition("left out")[2].split())
        for title, number in shown.items():
            assert text.count(number) == 2 or title in left_out or (title.startswith("TEV") and "state" in text)


def test_every_run_is_listed_with_its_folder_and_how_it_stands(make_run, training_rows, tmp_path):
    records = [
        make_run("deep/a", seed=1),
        make_run("deep/b", seed=2, state="running", rows=training_rows(7)),
        make_run("c", "mlra", state="unhealthy", rows=training_rows(diverge=9)),
    ]
    lines = [
        " ".join(line.split()) for line in rendered(records, 160, lambda each: runs_table(each, tmp_path)).split("\n")
    ]
    for start in (
        "deep/a baseline, seed 1 finished 3.1733",
        "deep/b baseline, seed 2 killed, step 7 of 40",
        "c mlra diverged at step 9 failed",
    ):
        assert any(line.startswith(start) for line in lines), lines


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"tokenizer": "bytes"}, {"tokenizer": "bpe:300"}, "different tokenizers: losses and perplexities do not"),
        ({"spec": "pydocs"}, {"spec": "text:a"}, "different data: neither losses nor bits per byte compare"),
        ({}, {}, ""),
    ],
)
def test_numbers_that_do_not_compare_are_said_to(one, other, said, make_run, tmp_path):
    records = [make_run(name, data=data) for name, data in (("a", one), ("b", other))]
    for text in (rendered(records), rendered(records, 160, lambda each: runs_table(each, tmp_path))):
        assert said in text if said else "compare" not in text
    write_report(records, tmp_path / "page.html", title="two")
    assert said in (tmp_path / "page.html").read_text()


def test_the_same_spec_with_other_content_is_other_data(make_run):
    records = [make_run(each, record={"data_hash": each * 64}) for each in "ab"]
    assert "the runs read different data" in rendered(records)
