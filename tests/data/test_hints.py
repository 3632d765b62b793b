"""A spec that is nearly right is answered with the right one, to copy."""

import json

import pytest

from spikeless.data import parse_corpus
from spikeless.errors import UserError


@pytest.fixture(autouse=True)
def desk(tmp_path):
    for name in ("notes/a.md", "notes/deep/b.md", "file.txt", "text/a.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("some text")
    for name in ("x.jsonl", "lines/x.jsonl", "lines/y.jsonl", "both/a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"text": "one"}))
    for name in ("x.csv", "both/a.csv", "x.parquet", "x.JSONL.GZ", "code.json"):
        (tmp_path / name).write_text("text\none\n")
    for name in ("prepared/manifest.json", "saved/state.json"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}")
    (tmp_path / "empty").mkdir()


@pytest.mark.parametrize(
    ("spec", "right"),
    [
        ("file.txt", "text:file.txt"),
        ("./file.txt", "text:./file.txt"),
        ("x.jsonl", "jsonl:x.jsonl"),
        ("x.jsonl,field=text", "jsonl:x.jsonl,field=text"),
        ("x.JSONL.GZ", "jsonl:x.JSONL.GZ"),
        ("x.csv", "csv:x.csv"),
        ("x.parquet", "parquet:x.parquet"),
        ("*.parquet", "parquet:*.parquet"),
        ("notes", "text:notes/**/*.md"),
        ("notes/", "text:notes/**/*.md"),
        ("notes/**/*.md", "text:notes/**/*.md"),
        ("lines", "jsonl:lines/**/*.jsonl"),
        ("both", "hf:both"),
        ("prepared", "shards:prepared"),
        ("saved/", "hf:saved"),
        ("lab/notes", "hf:lab/notes"),
        ("gone.tsv", "csv:gone.tsv"),
        ("fil.txt", "file.txt"),
        ("hf://datasets/lab/notes/a.parquet", "hf:lab/notes"),
        ("https://lab.org/a.jsonl.gz", "jsonl:FILE"),
        ("file://x.jsonl", "jsonl:x.jsonl"),
        ("txt:file.txt", "text:file.txt"),
        ("json:x.jsonl", "jsonl:x.jsonl"),
        ("josnl:x.jsonl,field=text", "jsonl:x.jsonl,field=text"),
        ("tsv:x.csv", "csv:x.csv"),
        ("dataset:both", "hf:both"),
        ("text:notes", "text:notes/**/*.md"),
        ("text:notes/", "text:notes/**/*.md"),
        ("text:lines", "jsonl:lines/**/*.jsonl"),
        ("jsonl:both", "hf:both"),
        ("text:x.jsonl", "jsonl:x.jsonl"),
        ("text:x.*sv", "csv:x.*sv"),
        ("jsonl:x.parquet", "parquet:x.parquet"),
        ("jsonl:x.csv", "csv:x.csv"),
        ("csv:x.jsonl,field=body", "jsonl:x.jsonl"),
        ("parquet:file.txt", "text:file.txt"),
        ("hf:x.jsonl", "jsonl:x.jsonl"),
        ("hf:file.txt", "text:file.txt"),
        ("text:nots/*.md", "notes"),
        ("text:file.text", "file.txt"),
    ],
)
def test_the_right_spelling_is_given(spec, right):
    with pytest.raises(UserError) as error:
        list(parse_corpus(spec).documents())
    assert f"'{right}" in str(error.value)


def test_what_could_be_meant_is_not_refused(tmp_path):
    assert len(list(parse_corpus("text:code.json").documents())) == 1
    assert len(list(parse_corpus("text:*").documents())) == 6
    (tmp_path / "lines.txt").write_text('{"text": "a"}')
    assert list(parse_corpus("jsonl:lines.txt").documents()) == ["a"]


def test_a_folder_with_nothing_in_it():
    with pytest.raises(UserError, match="text: empty is a folder that holds nothing that can be read"):
        list(parse_corpus("text:empty").documents())
