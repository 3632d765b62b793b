"""Runs that would look equal are told apart by all that differs."""

import pytest

from spikeless.report import run_rows
from spikeless.report.arms import gather


def names(records):
    return [arm.name for arm in gather(records)]


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ({"optim": {"lr": 0.1}}, {"optim": {"lr": 1.0}}, ["optim.lr=0.1", "optim.lr=1.0"]),
        ({"data": {"spec": "pydocs"}}, {"data": {"spec": "text:a.txt"}}, ["data.spec=pydocs", "data.spec=text:a.txt"]),
        (
            {"data": {"tokenizer": "bytes"}, "model": {"vocab_size": 257}},
            {"data": {"tokenizer": "bpe:300"}, "model": {"vocab_size": 300}},
            ["data.tokenizer=bytes", "data.tokenizer=bpe:300"],
        ),
        ({"init_from": None}, {"init_from": "gpt2"}, ["init_from=null", "init_from=gpt2"]),
        (
            {"norm": None, "schedule": {"type": "a.b:Cosine", "final": 0.1}},
            {"norm": {"type": "nn.norm:RMSNorm", "eps": 1e-5}, "schedule": {"type": "a.c:Constant"}},
            ["norm=null, schedule=Cosine(final=0.1)", "norm=RMSNorm(eps=1e-05), schedule=Constant"],
        ),
        ({"a": 1, "b": 1, "c": 1, "steps": 1}, {"a": 2, "b": 2, "c": 2, "steps": 2}, ["steps=1, a=1, b=1, c=1"] * 2),
        ({"record": {"data_hash": "a" * 64}}, {"record": {"data_hash": "b" * 64}}, ["data_hash=" + "a" * 12] * 2),
        (
            {"init_from": "x", "record": {"init_from": {"weights": "c" * 64}}},
            {"init_from": "x", "record": {"init_from": {"weights": "d" * 64}}},
            ["weights=" + "c" * 12] * 2,
        ),
        ({"record": {"origin": {"folder": "runs/a", "step": 100}}}, {}, ["branch=runs/a@100", ""]),
        ({"seed": 1, "optim": {"lr": 0.1}}, {"seed": 2}, ["optim.lr=0.1, seed=1", "optim.lr=0.001, seed=2"]),
    ],
)
def test_a_name_tells_every_difference(one, other, told, make_run):
    first, second = names([make_run("a", **one), make_run("b", **other)])
    assert first == f"baseline ({told[0]})"
    assert len({first, second}) == 2
    if told[1] != told[0]:
        assert second == (f"baseline ({told[1]})" if told[1] else "baseline")


def test_the_data_are_told_by_their_spec_where_that_differs(make_run):
    records = [make_run(each, data={"spec": each}, record={"data_hash": each * 64}) for each in "ab"]
    assert names(records) == ["baseline (data.spec=a)", "baseline (data.spec=b)"]


def test_runs_of_several_recipes_have_its_name_and_not_all_of_its_settings(make_run):
    changed = {"path": "optim.lr", "old": 1, "new": 2}
    records = [
        make_run("a", width=1, optim={"lr": 1}),
        make_run("b", recipe="llama_nano", width=2, optim={"lr": 2}, record={"diff": [changed]}),
    ]
    assert names(records) == ["baseline on deep_nano (optim.lr=1)", "baseline on llama_nano (optim.lr=2)"]


def test_how_a_run_was_watched_makes_no_other_arm(make_run):
    records = [make_run(f"r{seed}", seed=seed, metrics={"every": seed}, checkpoint={"every": seed}) for seed in (1, 2)]
    (arm,) = gather(records)
    assert [arm.run_name(record) for record in records] == ["baseline, seed 1", "baseline, seed 2"]


def test_a_field_that_an_older_version_did_not_record_is_no_difference(make_run):
    old, new = make_run("old"), make_run("new", seed=1, data={"separator": "eos"})
    assert (
        names([old, new]) == [f"baseline (seed=0), {old.folder}", "baseline (seed=1)"]
        or len(set(names([old, new]))) == 2
    )


def test_the_same_run_twice_is_told_apart_by_its_folder(make_run):
    rows = run_rows([make_run("a"), make_run("b")])
    assert len({row["arm"] for row in rows}) == 2
