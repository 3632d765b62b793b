import numpy as np
import pytest

from spikeless.data import parse_corpus
from spikeless.data.corpora import shards as shards_corpus
from spikeless.data.prepare import prepare_folder
from spikeless.data.split import Split
from spikeless.errors import UserError

SPEC = "text:notes/*.txt"


@pytest.fixture(params=["bytes", "bpe:300"])
def prepared(request, notes, tmp_path):
    (notes / "unicode.txt").write_text("naïve 🙂 日本語\n\n  two  spaces <|endoftext|> ", encoding="utf-8")
    prepare_folder(SPEC, request.param, tmp_path / "shards", validation_fraction=0.2)
    return parse_corpus("shards:shards")


@pytest.mark.parametrize("chunk", [3, 1000, 1 << 20])
def test_the_documents_are_those_that_were_prepared(prepared, chunk, monkeypatch):
    monkeypatch.setattr(shards_corpus, "CHUNK_TOKENS", chunk)
    before = Split(corpus=parse_corpus(SPEC), validation_fraction=0.2)
    now = Split(corpus=prepared, validation_fraction=0.5)  # they bring their own
    for part in ("train", "validation"):
        assert list(now.documents(part)) == list(before.documents(part))


def test_the_content_identifies_it(prepared, tmp_path):
    (tmp_path / "shards").rename(tmp_path / "elsewhere")
    assert parse_corpus("shards:elsewhere").fingerprint() == parse_corpus("shards:elsewhere").fingerprint()
    with pytest.raises(UserError, match="shards"):
        prepared.fingerprint()


@pytest.mark.parametrize("read", ["documents", "validation_documents"])
def test_a_folder_that_is_none(read, notes):
    with pytest.raises(UserError, match="notes holds no token shards"):
        getattr(parse_corpus("shards:notes"), read)()


def test_damaged_shards(prepared, tmp_path):
    path = tmp_path / "shards" / "train-00000.bin"
    np.memmap(path, dtype=np.uint16, mode="r+")[:3] = 60_000
    with pytest.raises(UserError, match="the id 60000"):
        list(prepared.documents())
