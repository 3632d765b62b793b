import gzip
from collections import Counter

import pytest

from spikeless.data import parse_corpus
from spikeless.errors import UserError


def documents(spec, tally=None):
    return list(parse_corpus(spec).documents(tally))


def write(folder, content, name="a.csv"):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quoted_cells_hold_delimiters_quotes_and_line_ends(tmp_path, end):
    rows = ['id,"text"', f'1,"one, ""two""{end}three"', "", '"2",naïve 🤖', "3,", "4,NA", "5,null"]
    write(tmp_path, b"\xef\xbb\xbf" + end.join(rows).encode())
    tally = Counter()
    assert documents("csv:a.csv", tally) == [f'one, "two"{end}three', "naïve 🤖", "NA", "null"]
    assert tally == {"blank": 1}


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.tsv", "text\tid\na, b\t1\n", ""),
        ("a.tsv.gz", gzip.compress(b"text\tid\na, b\t1\n", mtime=0), ""),
        ("a.csv", "text;id\na, b;1\n", ",delimiter=;"),
        ("a.txt", "text\tid\na, b\t1\n", ",delimiter=tab"),
        ("a.txt", "text\tid\na, b\t1\n", r",delimiter=\t,field=text"),
        ("a.csv", '"text","id"\n"a, b","1"\n', ",delimiter=,,field=text"),
    ],
)
def test_delimiters(tmp_path, name, content, options):
    write(tmp_path, content, name)
    assert documents(f"csv:{name}{options}") == ["a, b"]


def test_quotation_marks_may_be_text(tmp_path):
    write(tmp_path, 'text\tn\n"Yes," he said\t1\n', "a.tsv")
    with pytest.raises(UserError, match=r"a.tsv, line 2: .*; double every quotation mark .* or write quoted=false"):
        documents("csv:a.tsv")
    assert documents("csv:a.tsv,quoted=false") == ['"Yes," he said']


def test_what_is_not_unicode_is_replaced_and_counted_where_it_is_in_the_document(tmp_path):
    write(tmp_path, b"text,other\ncaf\xe9,a\nfine,caf\xe9\n")
    tally = Counter()
    assert documents("csv:a.csv", tally) == ["caf\ufffd", "fine"]
    assert tally == {"invalid_utf8": 1}


def test_a_long_cell(tmp_path):
    write(tmp_path, f"text\n{'word ' * 100_000}\n")
    assert len(documents("csv:a.csv")[0]) == 500_000


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("text,id\na,1,2\n", "", "line 2: a row of 3 cells, but the first row names 2 columns; quote cells"),
        ("text,id\na\n", "", "line 2: a row of 1 cells"),
        ("text;id\na;1\n", "", "the first row names one column, 'text;id'; name what separates columns"),
        ("body,id\na,1\n", "", "no field 'text'; .*fields are 'body', 'id'"),
        ("text,text\na,b\n", "", "several columns 'text'; rename them"),
        ('text\n"a', "", "line 2: unexpected end of data; double every"),
        ("text\n", "", "all of them blank"),
        ("text\na\n", ",delimiter=ab", "the delimiter 'ab' is not one character; write tab"),
        ("text\na\n", ",quoted=no", "quoted: expected true or false"),
    ],
)
def test_bad_files_are_named(tmp_path, content, options, message):
    write(tmp_path, content)
    with pytest.raises(UserError, match=message):
        documents(f"csv:a.csv{options}")


def test_the_fingerprint_knows_the_delimiter(tmp_path):
    write(tmp_path, "text,a;b\nx,1;2\n")
    specs = ["csv:a.csv", "csv:a.csv,delimiter=;", "csv:a.csv,quoted=false", "csv:a.csv,field=a;b"]
    assert len({parse_corpus(spec).fingerprint() for spec in specs}) == 4
