import json
import sys
from collections import Counter

import pytest

from spikeless.data import parse_corpus
from spikeless.errors import UserError

datasets = pytest.importorskip("datasets")

TEXTS = [f"document {number}, naïve 🤖" for number in range(40)]


@pytest.fixture(autouse=True)
def library_cache(tmp_path, monkeypatch):
    """The library's cache, in the test's own folder: it reads the environment when it is imported."""
    folder = tmp_path / "datasets-cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return folder


def documents(spec, tally=None):
    return list(parse_corpus(spec).documents(tally))


def lines(texts, field="text"):
    return "".join(json.dumps({"id": number, field: text}) + "\n" for number, text in enumerate(texts))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text(lines(TEXTS))
    (folder / "test.jsonl").write_text(lines(["held out"]))
    return folder


def write_as(kind, folder):
    folder.mkdir()
    dataset = datasets.Dataset.from_dict({"text": TEXTS, "id": list(range(len(TEXTS)))})
    if kind == "jsonl":
        (folder / "a.jsonl").write_text(lines(TEXTS))
    elif kind == "parquet":
        dataset.to_parquet(folder / "a.parquet")
    elif kind == "csv":
        dataset.to_csv(folder / "a.csv")
    elif kind == "saved":
        dataset.save_to_disk(folder)
    else:
        datasets.DatasetDict({"train": dataset, "validation": dataset.select([3])}).save_to_disk(folder)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv", "saved", "saved-splits"])
def test_local_folders_of_any_form_again_and_again(tmp_path, kind):
    write_as(kind, tmp_path / "data")
    corpus = parse_corpus("hf:data")
    assert list(corpus.documents()) == TEXTS
    assert list(corpus.documents()) == TEXTS


def test_no_progress_is_drawn_where_nobody_sees_it(folder, capfd):
    datasets.enable_progress_bars()
    documents("hf:data,streaming=false")
    assert capfd.readouterr() == ("", "")


def test_splits_fields_and_skipped_rows(folder):
    (folder / "train.jsonl").write_text(lines(TEXTS, field="body"))
    (folder / "test.jsonl").write_text(lines(["one", None, " ", "two"], field="body"))
    tally = Counter()
    assert documents("hf:data,split=test,field=body", tally) == ["one", "two"]
    assert tally == {"blank": 2}
    corpus = parse_corpus("hf:data,split=test,field=body,validation_split=train")
    assert list(corpus.validation_documents() or ()) == TEXTS
    assert parse_corpus("hf:data").validation_documents() is None


def test_a_folder_is_read_where_it_lies_or_copied_if_that_is_asked_for(folder, library_cache):
    assert documents("hf:data") == TEXTS
    assert not list(library_cache.rglob("*.arrow"))
    assert documents("hf:data,streaming=false") == TEXTS
    assert list(library_cache.rglob("*.arrow"))


def test_the_configurations_of_a_folder(folder):
    configs = "- config_name: a\n  data_files: train.jsonl\n- config_name: b\n  data_files: test.jsonl\n"
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    assert documents("hf:data,config=b") == ["held out"]
    with pytest.raises(UserError, match=r"hf: data cannot be read: .*'c' not found. Available: \['a', 'b'\]"):
        documents("hf:data,config=c")
    with pytest.raises(UserError, match=r"Config name is missing.*\['a', 'b'\]"):
        documents("hf:data")


def test_the_fingerprint_follows_files_and_options_wherever_they_lie(folder, tmp_path):
    specs = ["hf:data", "hf:data,split=test", "hf:data,field=id", "hf:data,validation_split=test"]
    prints = [parse_corpus(spec).fingerprint() for spec in specs]
    assert len(set(prints)) == 4
    folder.rename(tmp_path / "elsewhere")
    assert parse_corpus("hf:elsewhere").fingerprint() == prints[0]
    assert parse_corpus("hf:elsewhere,streaming=false").fingerprint() == prints[0]
    (tmp_path / "elsewhere" / ".hidden").write_text("x")
    assert parse_corpus("hf:elsewhere").fingerprint() == prints[0]
    with (tmp_path / "elsewhere" / "train.jsonl").open("a") as file:
        file.write('{"id": 40, "text": "one more"}\n')
    assert parse_corpus("hf:elsewhere").fingerprint() != prints[0]


def test_a_hub_dataset_comes_from_the_cache_where_there_is_no_hub(folder, library_cache, tmp_path):
    documents("hf:data,streaming=false")
    (cached,) = library_cache.glob("data/default/0.0.0/*/dataset_info.json")
    commit = library_cache / "lab___notes" / "default" / "0.0.0" / "5f0c1e2d"
    commit.parent.mkdir(parents=True)
    cached.parent.rename(commit)
    for path in list(commit.glob("data-*.arrow")):
        path.rename(commit / path.name.replace("data-", "notes-"))
    information = json.loads((commit / "dataset_info.json").read_text())
    (commit / "dataset_info.json").write_text(json.dumps(information | {"dataset_name": "notes"}))
    corpus = parse_corpus("hf:lab/notes")
    assert list(corpus.documents()) == TEXTS
    assert documents("hf:lab/notes,split=test,streaming=true") == ["held out"]
    before = corpus.fingerprint()
    assert parse_corpus("hf:lab/notes").fingerprint() == before
    commit.rename(commit.with_name("77777777"))
    assert parse_corpus("hf:lab/notes").fingerprint() != before
    with pytest.raises(UserError, match=r"cannot be read from the cache: .*\['default'\]"):
        documents("hf:lab/notes,config=other")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hf:data,split=trian", r"hf: data has no split 'trian'; did you mean 'train'\?"),
        ("hf:data,field=body", r"split train: no field 'body'; the fields are 'id', 'text': name one"),
        ("hf:data,field=id", "split train, row 0: the field 'id' holds a number, not text"),
        ("hf:data/train.jsonl", "is a file; name its folder, or write jsonl:"),
        ("hf:./nowhere", "there is no such folder in"),
        ("hf:a/b/c", "there is no such folder in"),
        (
            "hf:lab/nothing",
            "no folder lab/nothing, it is not in the cache of datasets, and the .* hub cannot be reached",
        ),
        ("hf:data,streaming=maybe", "streaming: expected true or false, got 'maybe'"),
    ],
)
def test_what_is_not_there_is_said(folder, spec, message):
    with pytest.raises(UserError, match=message):
        documents(spec)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.jsonl", b'{"text": "a"}\n{"text": \n', r"hf: data, split train cannot be read: "),
        ("train.jsonl", b'{"text": "\xff"}\n', r"split train cannot be read: "),
        ("train.jsonl", b'{"text": ""}\n', "holds no text in the field 'text'"),
        ("a.parquet", b"PAR1 and then nothing", r"hf: data.* cannot be read: "),
        ("data.py", b"raise SystemExit('run!')", "hf: data cannot be read: .*[Ss]cripts are no longer supported"),
    ],
)
def test_folders_that_cannot_be_read(tmp_path, name, content, message):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        documents("hf:data")


def test_what_is_missing_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"datasets is not installed; pip install 'spikeless\[data\]'"):
        documents("hf:data")


@pytest.mark.parametrize("content", ["[]", '{"_data_files": [{}]}', "{"])
def test_a_damaged_saved_dataset_is_a_users_error(tmp_path, content):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text(content)
    with pytest.raises(UserError, match="saved"):
        parse_corpus(f"hf:{tmp_path}/saved").fingerprint()
