import os

import pytest

from spikeless.data import parse_tokenizer

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache for every test, and relative paths that lie in the test's own folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SPIKELESS_CACHE", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def byte_tokenizer():
    return parse_tokenizer("bytes").build(lambda: iter(()), "")


@pytest.fixture
def notes(tmp_path):
    """Forty small text files, the corpus `text:notes/*.txt`."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(40):
        lines = [f"note {number}, line {line}: the cat sat on the mat" for line in range(6)]
        (folder / f"{number:02d}.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder
