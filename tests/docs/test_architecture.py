"""The rooms, the floors and the run folder of docs/architecture.md are those of the code."""

import json
import re
import sqlite3
import tomllib
from pathlib import Path

import pytest

from spikeless.pretrained.read import read_pretrained
from spikeless.recipes import compose
from spikeless.training.export import export
from spikeless.training.loop import train

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_rooms_are_those_of_the_package():
    package = ROOT / "src" / "spikeless"
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    files = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"^\| `([a-z_]+(?:/|\.py))` \|", section("Rooms"), re.MULTILINE)) == folders | files


def test_the_floors_are_those_of_the_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (each["layers"] for each in contracts if each["type"] == "layers")
    shown = section("Floors").partition("```text\n")[2].partition("```")[0]

    def rooms(line: str) -> set[str]:
        return {room.strip().removeprefix("spikeless.") for room in line.split("|")}

    assert [rooms(line) for line in shown.splitlines()] == [rooms(line) for line in layers]


@pytest.fixture
def run_folder(extended, tmp_path):
    """Three steps of the examples of docs/extending.md, all together."""
    documents = [f"Document {number} speaks of ships, of the sea, and of the long way home." for number in range(20)]
    with sqlite3.connect(tmp_path / "corpus.db") as database:
        database.execute("create table documents (id integer, body text)")
        database.executemany("insert into documents values (7, ?)", [(each,) for each in documents])
    small = ["num_layers=1", "width=16", "num_heads=2", "num_kv_heads=1", "context_length=16"]
    run = compose(
        "starcoder2_nano",
        ["my_lab.tricks:LouderEmbed(by=3)"],
        [
            *(f"model.{each}" for each in small),
            "data.sequence_length=16",
            "data.batch_size=2",
            "data.spec=sqlite:corpus.db,field=body",
            "data.tokenizer=bytes",
            "schedule=polynomial(power=3, warmup_steps=1)",
            'metrics.diagnostics=["tev", "largest_weight"]',
            "metrics.every=1",
            "evaluation.tokens=32",
            "steps=3",
            "precision=fp32",
            "device=cpu",
        ],
    )
    return train(run, tmp_path / "run").folder


def test_the_examples_of_extending_train_and_the_folder_is_as_described(run_folder):
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert all(row["largest_weight"] > 0 for row in rows)
    assert rows[0]["tev/effective_mean"] == pytest.approx(3 * rows[0]["tev/mean"])
    keys = set(re.findall(r"^\| `(\w+)` \|", section("A run folder"), re.MULTILINE)) - {"mfu"}
    assert {key for row in rows for key in row if "/" not in key} == keys | {"largest_weight"}
    shown = section("A run folder").partition("```text\n")[2].partition("```")[0]
    named = {line.split()[0].rstrip("/") for line in shown.splitlines()} | {"tokenizer_config.json"}
    found = {re.sub(r"step-\d+", "step-00000100", path.name) for path in run_folder.rglob("*")}
    assert {name for name in found if not name.startswith("events.")} == named


def test_the_example_family_and_technique_export_and_come_back(run_folder, tmp_path):
    """StarCoder2 with a louder embedding: one file each, nothing else to edit."""
    agreement = export(run_folder, tmp_path / "model")
    assert agreement.reader.startswith("transformers")
    read = read_pretrained(tmp_path / "model")
    assert (read.config.family, read.config.tied) == ("starcoder2", False)


def test_the_tokenizer_of_a_run_folder_serves_another_run(run_folder, tmp_path):
    run = compose("gpt2_wide", [], [f"data.tokenizer=file:{run_folder}", "data.spec=sqlite:corpus.db,field=body"])
    small = {"steps=1", "model.width=16", "data.sequence_length=16", "evaluation.tokens=16", "data.batch_size=1"}
    assignments = [f"data.tokenizer={run.data.tokenizer}", f"data.spec={run.data.spec}", "precision=fp32", *small]
    assert train(compose("gpt2_wide", [], assignments), tmp_path / "second").summary().state == "finished"
