import itertools
import random
import sys
from collections import Counter

import pytest

from spikeless.data import parse_corpus
from spikeless.errors import UserError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

TEXTS = [f"document {number}, naïve 🤖" for number in range(700)]


def documents(spec, tally=None):
    return list(parse_corpus(spec).documents(tally))


def write(path, column, name="text", **options):
    table = pyarrow.table({"id": list(range(len(column))), name: column})
    parquet.write_table(table, path, **options)


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.string(),
        pyarrow.large_string(),
        pyarrow.binary(),
        pyarrow.large_binary(),
        pyarrow.string_view(),
        pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
    ],
    ids=str,
)
def test_a_column_of_any_kind_of_text_over_several_row_groups(tmp_path, kind):
    write(tmp_path / "a.parquet", pyarrow.array(TEXTS).cast(kind), row_group_size=300)
    assert documents("parquet:a.parquet") == TEXTS


def test_nulls_and_blank_rows_are_counted(tmp_path):
    write(tmp_path / "a.parquet", ["one", None, " \n", "two", ""], name="body")
    tally = Counter()
    assert documents("parquet:*.parquet,field=body", tally) == ["one", "two"]
    assert tally == {"blank": 2, "null": 1}


def test_bytes_that_are_not_utf8_are_replaced_and_counted(tmp_path):
    raw = pyarrow.array([b"caf\xe9", b"fine"])
    as_text = pyarrow.Array.from_buffers(pyarrow.string(), 2, raw.buffers())
    for column in (raw, as_text):
        write(tmp_path / "a.parquet", column)
        tally = Counter()
        assert documents("parquet:a.parquet", tally) == ["caf\ufffd", "fine"]
        assert tally == {"invalid_utf8": 1}


def test_no_other_column_is_read(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", TEXTS)
    read, iter_batches = [], parquet.ParquetFile.iter_batches

    def spy(self, *arguments, **options):
        for batch in iter_batches(self, *arguments, **options):
            read.append((batch.num_rows, batch.schema.names))
            yield batch

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", spy)
    assert documents("parquet:a.parquet") == TEXTS
    assert {names for _, (names,) in read} == {"text"}
    assert max(rows for rows, _ in read) < len(TEXTS) / 2


def test_a_row_group_of_any_size_is_read_a_piece_at_a_time(tmp_path):
    letters = random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=1 << 20)
    texts = ["".join(letters[start : start + 8192]) for start in range(0, 1 << 20, 8192)] * 40
    write(tmp_path / "a.parquet", texts, row_group_size=len(texts), use_dictionary=False)
    del texts
    before, peak = pyarrow.total_allocated_bytes(), 0
    for _ in parse_corpus("parquet:a.parquet").documents():
        peak = max(peak, pyarrow.total_allocated_bytes() - before)
    assert 0 < peak < 16 << 20 < (tmp_path / "a.parquet").stat().st_size


def test_validation_and_fingerprint(tmp_path):
    write(tmp_path / "a.parquet", ["a"])
    write(tmp_path / "b.parquet", ["b"])
    corpus = parse_corpus("parquet:*.parquet,validation=b.parquet")
    assert (list(corpus.documents()), list(corpus.validation_documents() or ())) == (["a"], ["b"])
    specs = ["parquet:*.parquet", "parquet:*.parquet,field=id", "parquet:a.parquet"]
    assert len({corpus.fingerprint(), *(parse_corpus(spec).fingerprint() for spec in specs)}) == 4


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("body", ["b"], r"b.parquet: no field 'text'; the fields are 'id', 'body': name one with field=NAME"),
        ("text", [1.5], r"b.parquet: the column 'text' holds double, not text"),
        ("text", [["b"]], r"b.parquet: the column 'text' holds list<.*>, not text"),
    ],
)
def test_files_that_differ_are_named(tmp_path, name, column, message):
    write(tmp_path / "a.parquet", ["a"])
    write(tmp_path / "b.parquet", column, name=name)
    with pytest.raises(UserError, match=message):
        documents("parquet:*.parquet")


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-9],
        lambda raw: raw[: len(raw) // 2],
        lambda raw: b"",
        lambda raw: b'{"text": "json"}\n' * 9,
        lambda raw: raw[: len(raw) // 2] + b"\xff" * 800 + raw[len(raw) // 2 + 800 :],
        lambda raw: raw[:-8] + b"\xff\xff\xff\x7f" + raw[-4:],
    ],
    ids=["end", "half", "empty", "json", "pages", "footer-length"],
)
def test_damaged_files_are_named(tmp_path, damage):
    write(tmp_path / "a.parquet", TEXTS)
    raw = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(damage(raw))
    with pytest.raises(UserError, match=r"a.parquet cannot be read: .*; fetch it anew"):
        documents("parquet:a.parquet")


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", TEXTS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pyarrow is not installed; pip install 'spikeless\[data\]'"):
        documents("parquet:a.parquet")


def test_rows_that_are_missing_are_noticed(tmp_path, monkeypatch):
    parquet.write_table(
        pyarrow.table({"text": [f"document {number}" for number in range(100)]}), tmp_path / "a.parquet"
    )
    batches = parquet.ParquetFile.iter_batches
    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", lambda *a, **k: itertools.islice(batches(*a, **k), 2))
    with pytest.raises(UserError, match="36 rows fewer than it says"):
        list(parse_corpus(f"parquet:{tmp_path}/a.parquet").documents())
