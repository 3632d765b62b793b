import gzip
import json
import sys
from collections import Counter
from functools import partial

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeless.data import parse_corpus
from spikeless.data.corpora import jsonl
from spikeless.errors import UserError

LINES = [{"text": f"document {number}, naïve 🤖"} for number in range(300)]
PLAIN = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in LINES).encode()
GZIP = partial(gzip.compress, mtime=0)  # without the time, which would make the names of tests differ by the second
COMPRESS = {"plain": bytes, "gz": GZIP, "zst": zstandard.compress}


def documents(spec, tally=None):
    return list(parse_corpus(spec).documents(tally))


def write(folder, content, name="a.jsonl"):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_plain_and_compressed_lines_are_the_same_whatever_the_file_is_called(tmp_path, kind, name):
    if kind == "plain":
        name = "a.jsonl"
    write(tmp_path, COMPRESS[kind](PLAIN), name)
    assert documents(f"jsonl:{name}") == [line["text"] for line in LINES]


@pytest.mark.parametrize("compress", [GZIP, zstandard.compress])
def test_files_of_several_members_are_read_to_the_end(tmp_path, compress):
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0abcd" if compress is zstandard.compress else b""
    write(tmp_path, skippable + compress(PLAIN[:5000]) + compress(PLAIN[5000:]))
    assert documents("jsonl:a.jsonl") == [line["text"] for line in LINES]


def test_a_field_blank_lines_and_blank_documents(tmp_path):
    rows = [{"body": "one"}, {"body": " \n"}, {"body": None}, {"body": "two", "text": 7}, {"body": ""}]
    write(tmp_path, b"\xef\xbb\xbf" + "\n\r\n".join(map(json.dumps, rows)).encode())
    tally = Counter()
    assert documents("jsonl:*.jsonl,field=body", tally) == ["one", "two"]
    assert tally == {"blank": 2, "null": 1}


def test_validation_files_and_the_order_of_paths(tmp_path):
    for name in ("b", "c", "a"):
        write(tmp_path, json.dumps({"text": name}), f"{name}.jsonl")
    corpus = parse_corpus("jsonl:*.jsonl,validation=b.jsonl")
    assert list(corpus.documents()) == ["a", "c"]
    assert list(corpus.validation_documents() or ()) == ["b"]


def test_the_fingerprint_follows_content_and_field(tmp_path):
    write(tmp_path, PLAIN)
    write(tmp_path, PLAIN, "b.jsonl")
    write(tmp_path, PLAIN + b"\n", "c.jsonl")
    specs = ["jsonl:a.jsonl", "jsonl:b.jsonl", "jsonl:c.jsonl", "jsonl:a.jsonl,field=body", "jsonl:*.jsonl"]
    a, b, *others = [parse_corpus(spec).fingerprint() for spec in specs]
    assert a == b
    assert len({a, *others}) == 4


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'{"text": "caf\xe9 ol\xe9"}', "caf\ufffd ol\ufffd"),
        (rb'{"text": "a \ud83d b \udc00"}', "a \ufffd b \ufffd"),
        (b'{"text": "\xe2\x28 \\ud800"}', "\ufffd( \ufffd"),
    ],
)
def test_what_is_not_unicode_is_replaced_and_counted(tmp_path, line, text):
    write(tmp_path, b'{"text": "fine \\ud83e\\udd16"}\n' + line)
    tally = Counter()
    assert documents("jsonl:a.jsonl", tally) == ["fine 🤖", text]
    assert tally == {"invalid_utf8": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "cut', r"a.jsonl, line 3 is not JSON: Unterminated string.* at column 10; each line must be one"),
        ('{"text": "a"} {"text": "b"}', "line 3 is not JSON: Extra data at column 15"),
        ("[" * 100_000, "line 3 is not JSON.*(nested too deeply|Expecting value)"),
        ('["a"]', "line 3 is JSON, but not an object; each line must be one, with the fields of a document"),
        ("7", "line 3 is JSON, but not an object"),
        ('{"body": "b", "id": 1}', "line 3: no field 'text'; the fields are 'body', 'id': name one with field=NAME"),
        ("{}", "the fields are none"),
        (json.dumps(dict.fromkeys(map(str, range(99)))), "'18', '19', …: name one"),
        ('{"text": 7}', "line 3: the field 'text' holds a number, not text"),
        ('{"text": ["a"]}', "holds a list, not text; name a field of text, messages or token ids with field=NAME"),
        ('{"text": 7, "txet": 1}', "holds a number"),
        ('{"txet": "a", "id": 1}', "no field 'text'; did you mean 'txet'[?] The fields are 'txet', 'id'"),
        ('{"text": {"a": 1}}', "holds an object"),
        ('{"text": true}', "holds true or false"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    write(tmp_path, f'{{"text": "good"}}\n\n{line}\n')
    with pytest.raises(UserError, match=message):
        documents("jsonl:*.jsonl")


@pytest.mark.parametrize("line", ['{"id": NaN, "text": "a"}', '{"text": "b", "text": "a"}', '{"n": %s, "text": "a"}'])
def test_odd_but_harmless_json(tmp_path, line):
    write(tmp_path, line % ("9" * 9999) if "%s" in line else line)
    assert documents("jsonl:a.jsonl") == ["a"]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_an_array_of_objects_is_read_an_object_at_a_time(tmp_path, monkeypatch, indent, chunk):
    monkeypatch.setattr(jsonl, "CHUNK_BYTES", chunk)
    raw = b"\xef\xbb\xbf \n" + json.dumps(LINES[:40], ensure_ascii=False, indent=indent).encode() + b"\n\n"
    write(tmp_path, raw, "a.json")
    assert documents("jsonl:a.json") == [line["text"] for line in LINES[:40]]
    write(tmp_path, b"[]", "b.json")
    assert documents("jsonl:?.json") == [line["text"] for line in LINES[:40]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a"}, {"text": "b"', "element 2 of the array is not JSON: .*; the file may be truncated"),
        ('[{"text": "a"}', "element 2 of the array does not follow a comma, but the end of the file"),
        ('[{"text": "a"}]{', "goes on with '{' behind its array"),
        ('[{"text": "a"}, 7]', "element 2 of the array is JSON, but not an object; each element must be one"),
        ('[{"text": "a"} {"text": "b"}]', "element 2 of the array does not follow a comma, but {"),
        ('[{"text": "a"}, {"txt": "b"}]', "element 2 of the array: no field 'text'; did you mean 'txt'"),
        ("[" * 100_000, "element 1 of the array is not JSON that can be read|not an object"),
        ('{\n "text": "a"\n}\n', "line 1 is not JSON: .*; each line must be one JSON object, or the file one array"),
    ],
)
def test_bad_arrays_are_named(tmp_path, content, message):
    write(tmp_path, content, "a.json")
    with pytest.raises(UserError, match=message):
        documents("jsonl:a.json")


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (GZIP(PLAIN)[:-9], "a.jsonl.gz", r"a.jsonl.gz is truncated: its gzip data end too early"),
        (GZIP(PLAIN)[:5], "a.gz", "a.gz is truncated"),
        (zstandard.compress(PLAIN)[:-9], "a.jsonl.zst", r"a.jsonl.zst is damaged: Truncated compressed stream; fetch"),
        (zstandard.compress(PLAIN)[:5], "a.jsonl", "a.jsonl is damaged: Truncated"),
        (GZIP(PLAIN)[:-8] + b"12345678", "a.gz", "a.gz is damaged: CRC check failed"),
        (GZIP(PLAIN)[:40] + b"\xff" * 400, "a.gz", "a.gz is damaged: Error -3"),
        (zstandard.compress(PLAIN) + b"tail", "a.zst", "a.zst is damaged"),
        (b"", "a.jsonl.gz", "a.jsonl.gz is not gzip data, as its name says"),
        (PLAIN, "a.zst", "a.zst is not Zstandard data"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, name, message):
    write(tmp_path, content, name)
    with pytest.raises(UserError, match=message):
        documents(f"jsonl:{name}")


@pytest.mark.parametrize("kind", COMPRESS)
def test_an_endless_line_is_refused(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(jsonl, "LINE_LIMIT_BYTES", 3 << 20)
    write(tmp_path, COMPRESS[kind](b'{"text": "' + b"a" * (4 << 20) + b'"}'))
    with pytest.raises(UserError, match=r"a.jsonl, line 1 is longer than 3 MiB"):
        documents("jsonl:a.jsonl")
    write(tmp_path, COMPRESS[kind](b'{"text": "' + b"a" * (2 << 20) + b'"}'))
    assert len(documents("jsonl:a.jsonl")[0]) == 2 << 20


def test_no_files_and_blank_files(tmp_path):
    write(tmp_path, "\n\n")
    with pytest.raises(UserError, match=r"jsonl: no file matches 'none'.*'jsonl:GLOB\[,field"):
        documents("jsonl:none")
    with pytest.raises(UserError, match=r"jsonl: 'a.jsonl' matches 1 file\(s\), all of them blank"):
        documents("jsonl:a.jsonl")


def test_what_is_missing_is_named_where_zstandard_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    write(tmp_path, zstandard.compress(PLAIN))
    with pytest.raises(UserError, match=r"needs pyarrow; pip install 'spikeless\[data\]'"):
        documents("jsonl:a.jsonl")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(), min_size=1), st.booleans())
def test_any_text_survives(tmp_path_factory, texts, ascii_only):
    folder = tmp_path_factory.mktemp("lines")
    lines = (json.dumps({"id": [1], "text": text}, ensure_ascii=ascii_only) for text in [*texts, "the end"])
    write(folder, "\n".join(lines))
    kept = [text for text in texts if text and not text.isspace()]
    assert documents(f"jsonl:{folder}/a.jsonl") == [*kept, "the end"]
