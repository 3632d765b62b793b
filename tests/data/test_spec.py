import pytest

from spikeless.config import find, names_in
from spikeless.data import parse_corpus, parse_tokenizer
from spikeless.data.corpora.hf import HuggingFace
from spikeless.data.corpora.jsonl import JSONLines
from spikeless.data.corpora.parquet import Parquet
from spikeless.data.corpora.pydocs import PyDocs
from spikeless.data.corpora.text import Text
from spikeless.data.tokenizers.bpe import Bpe
from spikeless.data.tokenizers.bytes import Bytes
from spikeless.data.tokenizers.hf import HuggingFaceTokenizer
from spikeless.errors import UserError


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("pydocs", PyDocs()),
        ("pydocs:numpy", PyDocs(packages="numpy")),
        ("text:a.txt", Text(files="a.txt")),
        ("text:a/**/*.txt,validation=b.txt", Text(files="a/**/*.txt", validation="b.txt")),
        ("jsonl:a/*.jsonl,field=body", JSONLines(files="a/*.jsonl", field="body")),
        ("parquet:a.parquet,validation=b", Parquet(files="a.parquet", validation="b")),
        ("hf:lab/notes,config=en,streaming=true", HuggingFace(name="lab/notes", config="en", streaming=True)),
        ("hf:notes, streaming=False", HuggingFace(name="notes", streaming=False)),
        ("text:\"a,b=c.txt\", validation='d, e=f'", Text(files="a,b=c.txt", validation="d, e=f")),
        ('jsonl:a,template="{a}, b=\\"{b}\\"\\n"', JSONLines(files="a", template='{a}, b="{b}"\\n')),
        ("jsonl:a,template='{a}' and \"{b}\"", JSONLines(files="a", template="'{a}' and \"{b}\"")),
        ("text:a, b.txt , validation=c:d,e.txt", Text(files="a, b.txt", validation="c:d,e.txt")),
    ],
)
def test_corpora_are_read_from_their_spec(spec, part):
    assert parse_corpus(spec) == part


def test_tokenizers_are_read_from_their_spec():
    assert parse_tokenizer("bpe:2048") == Bpe(vocab_size=2048)
    assert parse_tokenizer("bytes") == Bytes()
    assert parse_tokenizer("hf:lab/tok") == HuggingFaceTokenizer(name="lab/tok")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("txet:a.txt", r"the data 'txet:a.txt' name no corpus; did you mean 'text:a.txt'\?"),
        ("", "cannot read the corpus ''; write NAME"),
        (":a.txt", "write NAME, NAME:REST"),
        ("pydocs,numpy", "cannot read the corpus"),
        ("text", "lacks its files; write text:GLOB"),
        ("text:", "lacks its files"),
        ("text,validation=b.txt", "lacks its files"),
        ("text:a.txt,validaton=b.txt", "unknown key 'validaton'; did you mean 'validation'"),
        ("text:a.txt,validation=b,validation=c", "gives 'validation' twice"),
        ("hf:notes,streaming=yes", "streaming: expected true or false, got 'yes'"),
        ("_docstrings", "name no corpus; valid corpora: arrow, csv, hf"),
    ],
)
def test_wrong_corpus_specs(spec, message):
    with pytest.raises(UserError, match=message):
        parse_corpus(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bpx:2048", "no tokenizer is called 'bpx'; did you mean 'bpe'"),
        ("bpe", "lacks its vocab_size; write bpe:VOCAB_SIZE"),
        ("bpe:many", "vocab_size: expected a whole number, got 'many'"),
        ("bpe:2e3", "expected a whole number"),
        ("bpe:257", "bpe:257 is too small.*write bpe:258 or more"),
        ("bpe:__import__('os')", "expected a whole number"),
        ("bytes:8", "nothing may follow the name"),
    ],
)
def test_wrong_tokenizer_specs(spec, message):
    with pytest.raises(UserError, match=message):
        parse_tokenizer(spec)


@pytest.mark.parametrize("room", ["data.corpora", "data.tokenizers"])
def test_every_file_of_a_room_holds_one_part_that_says_how_its_spec_is_written(room):
    assert names_in(room)
    for name in names_in(room):
        assert find(room, name).usage.startswith(name)
