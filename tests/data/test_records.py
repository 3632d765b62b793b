"""How a document is picked from a record is the same whatever the file's format."""

import csv
import json
from collections import Counter

import numpy as np
import pytest

from spikeless.data import parse_corpus
from spikeless.data.documents import Messages, TokenIds
from spikeless.errors import UserError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("datasets")


def documents(spec, tally=None):
    return list(parse_corpus(spec).documents(tally))


def write(kind, rows, folder):
    """Rows as a file of a format, or as a dataset's folder; the spec that reads it."""
    if kind in ("jsonl", "hf"):
        path = folder / ("a.jsonl" if kind == "jsonl" else "set/train-0.jsonl")
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "csv":
        path = folder / "a.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "saved":
        import datasets

        datasets.Dataset.from_list(rows).save_to_disk(folder / "saved")
        return "hf:saved"
    else:
        path, table = folder / f"a.{kind}", pyarrow.Table.from_pylist(rows)
        if kind == "parquet":
            parquet.write_table(table, path)
        else:
            with pyarrow.ipc.new_stream(path, table.schema) as out:
                out.write_table(table)
    return "hf:set" if kind == "hf" else f"{kind}:{path.name}"


NESTED = ["jsonl", "parquet", "arrow", "hf", "saved"]
ALL = [*NESTED, "csv"]


@pytest.mark.parametrize("kind", NESTED)
def test_a_name_with_dots_leads_into_objects_and_what_is_called_so_comes_first(tmp_path, kind):
    rows = [{"doc": {"text": {"en": "one"}, "n": 1}, "a.b": "literal", "a": {"b": "inner"}}, {"doc": None, "a.b": "x"}]
    rows[1]["a"] = {"b": "y"}
    spec = write(kind, rows, tmp_path)
    tally = Counter()
    assert documents(f"{spec},field=doc.text.en", tally) == ["one"]
    assert tally == {"null": 1}
    assert documents(f"{spec},field=a.b") == ["literal", "x"]
    with pytest.raises(UserError, match=r"no field 'doc.txt.en'; did you mean 'doc.text.en'"):
        documents(f"{spec},field=doc.txt.en")
    with pytest.raises(UserError, match=r"(field|column) 'doc' holds (an object|struct.*), not text"):
        documents(f"{spec},field=doc")


@pytest.mark.parametrize("kind", ALL)
def test_a_template_puts_several_fields_into_one_document(tmp_path, kind):
    rows = [{"title": "A {b}", "body": "x, y=z", "year": 1999}, {"title": "", "body": "second", "year": 7}]
    rows += [{"title": "", "body": " ", "year": 0}]
    spec = write(kind, rows, tmp_path)
    tally = Counter()
    text = documents(f"{spec},template={{title}}\\n\\n{{body}}", tally)
    assert text == ["A {b}\n\nx, y=z", "\n\nsecond"]
    assert tally == {"blank": 1}
    quoted = f'{spec},template="{{{{{{ title }}}}}}, body={{body}} \\"{{year}}\\"\\t\\\\n"'
    assert documents(quoted)[0] == '{A {b}}, body=x, y=z "1999"\t\\n'
    assert documents(f"{spec},template={{year}}") == ["1999", "7", "0"]
    with pytest.raises(UserError, match="no field 'titel'; did you mean 'title'"):
        documents(f"{spec},template={{titel}}: {{body}}")
    assert parse_corpus(quoted).fingerprint() != parse_corpus(f"{spec},field=body").fingerprint()


def test_an_arrow_batch_without_rows_holds_no_document(tmp_path):
    table = pyarrow.table({"text": [[1, 2], [3]], "words": ["a", "b"]})
    with pyarrow.ipc.new_stream(tmp_path / "a.arrow", table.schema) as out:
        for part in (table.slice(0, 0), table):
            for batch in part.to_batches() or [pyarrow.RecordBatch.from_pylist([], table.schema)]:
                out.write_batch(batch)
    assert [each.ids.tolist() for each in documents("arrow:a.arrow")] == [[1, 2], [3]]
    assert documents("arrow:a.arrow,field=words") == ["a", "b"]


def test_nulls_in_a_template_are_counted_and_other_values_refused(tmp_path):
    rows = [{"a": None, "b": "two", "c": 1.5}, {"a": None, "b": None, "c": [1]}]
    spec = write("jsonl", rows, tmp_path)
    tally = Counter()
    assert documents(f"{spec},template={{a}}{{b}}!", tally) == ["two!"]
    assert tally == {"null_in_template": 1, "null": 1}
    with pytest.raises(UserError, match="line 1: the field 'c' holds a number that is not whole; a template takes"):
        documents(f"{spec},template={{c}}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("template={a} {b", "a brace without its partner at 5"),
        ("template=no field", "names no field; write {NAME}"),
        ("template={a},field=b", "field= and template= are both given"),
        ("template={a}, b={b}", "unknown key 'b' .a value with a comma and a word= in it needs quotation marks"),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl:a", "parquet:a", "csv:a", "hf:a"])
def test_templates_that_cannot_be_read(kind, options, message):
    with pytest.raises(UserError, match=message):
        parse_corpus(f"{kind},{options}")


CHAT = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]


@pytest.mark.parametrize("kind", NESTED)
def test_messages_of_either_form_and_token_ids(tmp_path, kind):
    shared = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}]
    rows = [{"messages": CHAT, "conversations": shared, "input_ids": [1, 2, 3]}]
    rows += [{"messages": [], "conversations": [], "input_ids": []}]
    spec = write(kind, rows, tmp_path)
    tally = Counter()
    (chat,) = documents(f"{spec},field=messages", tally)
    assert tally == {"blank": 1}
    assert isinstance(chat, Messages) and list(chat.turns) == CHAT
    assert documents(f"{spec},field=conversations") == [chat]
    (ids,) = documents(f"{spec},field=input_ids")
    assert isinstance(ids, TokenIds) and ids.ids.dtype == np.int64 and ids.ids.tolist() == [1, 2, 3]


def test_content_in_parts_and_other_keys_of_a_message(tmp_path):
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}
    spec = write("jsonl", [{"messages": [{"role": "user", "content": parts, "name": None}, call]}], tmp_path)
    (chat,) = documents(f"{spec},field=messages")
    assert list(chat.turns) == [{"role": "user", "content": "a b"}, call | {"content": ""}]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([{"role": "user"}], "message 1 has no content"),
        ([{"content": "a"}], r"message 1 has no role \(its fields are 'content'\)"),
        ([CHAT[0], 7], "message 2 is int, not an object"),
        ([{"from": "narrator", "value": "a"}], "message 1 is from 'narrator', which is no role; known are 'human'"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "a part of the type 'image_url'; only text"),
        ([{"role": "user", "content": 7}], "has content that is int"),
        ([1, 2.5], r"holds 2.5 at place 1, among token ids"),
        ([1, -100], "holds the token id -100; ids are whole numbers from 0"),
        ([1, True], "holds True at place 1"),
    ],
)
def test_what_is_no_chat_and_no_ids_is_named(tmp_path, value, message):
    spec = write("jsonl", [{"x": value}], tmp_path)
    with pytest.raises(UserError, match=f"a.jsonl, line 1: the field 'x'.* {message}"):
        documents(f"{spec},field=x")


def test_a_corpus_holds_one_kind_of_document(tmp_path):
    spec = write("jsonl", [{"text": None}, {"text": "a"}, {"text": [1]}], tmp_path)
    with pytest.raises(UserError, match="holds token ids behind documents that are text; give one kind"):
        documents(spec)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv", "hf"])
def test_files_with_different_other_columns_are_read(tmp_path, kind):
    (tmp_path / "set").mkdir()
    for number, extra in enumerate([{}, {"lang": "en", "n": 1}, {"lang": 7}]):
        write("jsonl" if kind == "hf" else kind, [{"text": f"document {number}"} | extra], tmp_path)
        name = "a.jsonl" if kind == "hf" else f"a.{kind}"
        (tmp_path / name).rename(tmp_path / "set" / f"{number}.{name}")
    spec = "hf:set" if kind == "hf" else f"{kind}:set/*"
    assert documents(spec) == ["document 0", "document 1", "document 2"]
