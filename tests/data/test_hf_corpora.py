import gzip
import json
import shutil
import sys
from collections import Counter

import pytest

from spikeless.data import parse_corpus
from spikeless.errors import UserError

datasets = pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")
zstandard = pytest.importorskip("zstandard")

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


def test_no_progress_is_drawn_where_nobody_sees_it(tmp_path, capfd):
    datasets.enable_progress_bars()
    write_as("saved", tmp_path / "data")
    capfd.readouterr()
    documents("hf:data")
    assert capfd.readouterr() == ("", "")


def test_splits_fields_and_skipped_rows(folder):
    (folder / "train.jsonl").write_text(lines(TEXTS, field="body"))
    (folder / "test.jsonl").write_text(lines(["one", None, " ", "two"], field="body"))
    tally = Counter()
    assert documents("hf:data,split=test,field=body", tally) == ["one", "two"]
    assert tally == {"blank": 1, "null": 1}
    corpus = parse_corpus("hf:data,split=test,field=body,validation_split=train")
    assert list(corpus.validation_documents() or ()) == TEXTS
    assert parse_corpus("hf:data").validation_documents() is None
    assert parse_corpus("hf:data").selection() == "split train, part of it for validation; not read: split test"


@pytest.mark.parametrize("name", ["validation", "valid", "dev", "val"])
@pytest.mark.parametrize("kind", ["files", "saved"])
def test_a_validation_split_is_held_out_unless_another_one_is_named(folder, name, kind):
    if kind == "files":
        (folder / f"{name}.jsonl").write_text(lines(["mine"]))
        name = "validation"
    else:
        shutil.rmtree(folder)
        splits = {"train": TEXTS, name: ["mine"], "test": ["held out"]}
        datasets.DatasetDict(
            {key: datasets.Dataset.from_dict({"text": each}) for key, each in splits.items()}
        ).save_to_disk(folder)
    corpus = parse_corpus("hf:data")
    assert list(corpus.documents()) == TEXTS
    assert list(corpus.validation_documents() or ()) == ["mine"]
    assert corpus.selection() == f"split train, split {name} for validation; not read: split test"
    assert list(parse_corpus("hf:data,validation_split=test").validation_documents() or ()) == ["held out"]
    assert parse_corpus("hf:data,validation_split=none").validation_documents() is None
    assert parse_corpus(f"hf:data,split={name}").validation_documents() is None
    specs = ["hf:data", "hf:data,validation_split=test", "hf:data,validation_split=none"]
    assert len({parse_corpus(spec).fingerprint() for spec in specs}) == 3


def test_the_configurations_of_a_folder(folder):
    configs = "- config_name: a\n  data_files: train.jsonl\n- config_name: b\n  data_files: test.jsonl\n"
    (folder / "README.md").write_text(f"---\nlicense: mit\nconfigs:\n{configs}---\n# Data\n")
    assert documents("hf:data,config=b") == ["held out"]
    assert parse_corpus("hf:data,config=b").selection().endswith("not read: README.md, train.jsonl")
    with pytest.raises(UserError, match=r"hf: data has no configuration 'c'; valid configurations: a, b"):
        documents("hf:data,config=c")
    with pytest.raises(UserError, match="several configurations; name one with config=: a, b"):
        documents("hf:data")
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}  default: true\n---\n")
    assert documents("hf:data") == ["held out"]
    (folder / "README.md").unlink()
    with pytest.raises(UserError, match="has no configurations"):
        documents("hf:data,config=a")


@pytest.mark.parametrize(
    "configs",
    [
        "data_files: {train: [train.jsonl, test.jsonl]}",
        "data_files: [train.jsonl, test.jsonl]",
        "data_files: [{split: train, path: '*.jsonl'}]",
        "data_files: [{split: train, path: [train.jsonl, '**/test.jsonl']}, {split: more, path: other/*}]",
        "data_files: 't*'",
        "data_files: '*.jsonl', data_dir: .",
    ],
)
def test_what_a_readme_says_of_files_is_obeyed(folder, configs):
    (folder / "other").mkdir()
    (folder / "other" / "train.csv").write_text("text\nmore\n")
    (folder / "README.md").write_text(f"---\nconfigs: [{{config_name: default, {configs}}}]\n---\n")
    assert sorted(documents("hf:data")) == sorted([*TEXTS, "held out"])


def test_a_readme_may_name_a_folder_or_a_delimiter(folder):
    (folder / "other").mkdir()
    (folder / "other" / "train.csv").write_text("text|n\na, b|1\n")
    (folder / "README.md").write_text("---\nconfigs: [{config_name: x, data_dir: other, sep: '|'}]\n---\n")
    assert documents("hf:data") == ["a, b"]


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ("[{data_files: ../*.jsonl}]", r"README.md names ../\*.jsonl, which lies outside of the folder"),
        ("[{data_files: 'hf://datasets/a/b/*'}]", "which lies outside of the folder"),
        ("[{data_files: gone.jsonl}]", "README.md names gone.jsonl, which matches no file"),
        ("[{data_files: '*.jsonl', sample_by: line}]", "gives sample_by for .*, which only the library datasets obeys"),
        ("[{data_files: {train: 7}}]", "data_files that cannot be read"),
        ("7", "configs that are no list"),
        ("[{data_files: '*'", "the head of README.md is not YAML"),
    ],
)
def test_a_readme_that_cannot_be_obeyed_is_refused(folder, configs, message):
    (folder / "README.md").write_text(f"---\nconfigs: {configs}\n---\n")
    with pytest.raises(UserError, match=message):
        documents("hf:data")


def make(folder, *names):
    """Files that each hold their own name, in the format that it tells."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset = datasets.Dataset.from_dict({"text": [name]})
        plain = name.lower().removesuffix(".gz").removesuffix(".zst")
        if plain.endswith(".parquet"):
            dataset.to_parquet(path)
        elif plain.endswith(".arrow"):
            with pyarrow.ipc.new_file(path, dataset.data.schema) as file:
                file.write_table(dataset.data.table)
        else:
            content = json.dumps({"text": name}) + "\n"
            content = f"[{content}]" if plain.endswith(".json") else content
            content = name if plain.endswith((".txt", ".md")) else content
            content = f"text\n{name}\n" if plain.endswith(("csv", "tsv")) else content
            compress = gzip.compress if name.endswith("gz") else zstandard.compress if name.endswith("zst") else bytes
            path.write_bytes(compress(content.encode()))


@pytest.mark.parametrize(
    ("names", "splits", "unread"),
    [
        (["b.jsonl", "a.jsonl"], {"train": "a.jsonl b.jsonl"}, ""),
        (["data.parquet", "LICENSE.txt", "NOTES.txt"], {"train": "data.parquet"}, "LICENSE.txt, NOTES.txt"),
        (["a.txt", "b.txt", "LICENSE.txt"], {"train": "a.txt b.txt"}, "LICENSE.txt"),
        (["notes.txt", "more.txt"], {"train": "more.txt notes.txt"}, ""),
        (["a.csv", "README.md", "config.json", "x.py"], {"train": "a.csv"}, "README.md, config.json, x.py"),
        (["train.jsonl", "unit-test.jsonl"], {"train": "train.jsonl"}, "split test"),
        (["train/a.jsonl", "train/b.test.jsonl", "test/a.jsonl"], {"train": "train/a.jsonl train/b.test.jsonl"},
         "split test"),
        (["a/b/c.jsonl", "a/d.jsonl", "e.jsonl"], {"train": "a/b/c.jsonl a/d.jsonl e.jsonl"}, ""),
        (["my-train.csv", "my-dev.csv"], {"train": "my-train.csv", "validation": "my-dev.csv"}, ""),
        (["TRAIN.JSONL", "Valid.jsonl"], {"train": "TRAIN.JSONL", "validation": "Valid.jsonl"}, ""),
        (["data/train-00000-of-00001.parquet", "data/valid-00000-of-00001.parquet"],
         {"train": "data/train-00000-of-00001.parquet", "validation": "data/valid-00000-of-00001.parquet"}, ""),
        (["train.parquet", "validation.jsonl"], {"train": "train.parquet", "validation": "validation.jsonl"}, ""),
        (["a.json", "b.jsonl.gz", "c.jsonl.zst", "d.ndjson"], {"train": "a.json b.jsonl.gz c.jsonl.zst d.ndjson"}, ""),
        (["a.csv.gz", "b.tsv", "c.tsv.zst"], {"train": "a.csv.gz b.tsv c.tsv.zst"}, ""),
        (["a.txt.gz", "b.txt.zst"], {"train": "a.txt.gz b.txt.zst"}, ""),
        (["a.arrow"], {"train": "a.arrow"}, ""),
        (["a.jsonl", ".hidden.jsonl", ".cache/b.jsonl", "__pycache__/c.jsonl"], {"train": "a.jsonl"}, ""),
        (["attest.jsonl", "contests.jsonl"], {"train": "attest.jsonl contests.jsonl"}, ""),
    ],
)  # fmt: skip
def test_every_file_is_read_or_named(tmp_path, names, splits, unread):
    make(tmp_path / "data", *names)
    corpus = parse_corpus("hf:data")
    assert documents("hf:data") == splits["train"].split()
    assert list(corpus.validation_documents() or ()) == splits.get("validation", "").split()
    assert corpus.selection().partition("; not read: ")[2] == unread


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train.jsonl", "extra.jsonl"], r"what extra.jsonl is for, .*\(train: train.jsonl\); .*'jsonl:data/extra"),
        (["part1.jsonl", "unit-test.jsonl"], r"not certain what part1.jsonl is for, .*\(test: unit-test.jsonl\)"),
        (["data/train-00000-of-00001.parquet", "more.parquet"], "not certain what more.parquet is for"),
        (["train/a.csv", "b.csv"], "not certain what b.csv is for"),
        (["a.jsonl", "b.parquet", "c.parquet"],
         r"several formats \(jsonl: a.jsonl; parquet: b.parquet, c.parquet\).*'parquet:data/"),
        (["train.csv", "train.parquet"], "split train holds files of several formats"),
        (["a.jsonl", "corpus.txt"], "several formats"),
        (["train-dev.jsonl", "b.jsonl"], "train-dev.jsonl is named for several splits, train and validation; rename"),
        (["a.jsonl", "b.jsonl.xz"], "b.jsonl.xz cannot be read; unpack or convert it"),
        (["a.jsonl", "b.tar.gz"], "b.tar.gz cannot be read"),
        (["a.jsonl", "b.gz"], "b.gz cannot be read"),
        (["archive.zip"], "archive.zip cannot be read"),
        (["a.md", "b.md"], r"no data files: it holds a.md, b.md; for its Markdown files write 'text:data/\*\*/\*.md'"),
        (["LICENSE.txt"], "no data files: it holds LICENSE.txt"),
        (["test.jsonl"], "has no split 'train'; valid splits: test"),
    ],
)  # fmt: skip
def test_what_is_not_certain_is_refused_with_what_to_write(tmp_path, names, message):
    make(tmp_path / "data", *names)
    with pytest.raises(UserError, match=message):
        documents("hf:data")


def test_an_empty_folder(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match="holds no data files: it is empty; give JSON"):
        documents("hf:data")


def test_a_folder_of_links_is_read(folder, tmp_path):
    (tmp_path / "links").mkdir()
    for path in folder.iterdir():
        (tmp_path / "links" / path.name).symlink_to(path)
    assert documents("hf:links") == TEXTS
    assert parse_corpus("hf:links").fingerprint() == parse_corpus("hf:data").fingerprint()


def test_a_text_file_is_a_document_and_has_no_fields(tmp_path):
    make(tmp_path / "data", "a.txt")
    (tmp_path / "data" / "b.txt").write_text("one\n\ntwo\n")
    assert documents("hf:data") == ["a.txt", "one\n\ntwo\n"]
    with pytest.raises(UserError, match=r"a.txt is a text file, which has no fields"):
        documents("hf:data,field=body")


def test_the_fingerprint_follows_the_files_that_are_read_and_the_options_wherever_they_lie(folder, tmp_path):
    specs = ["hf:data", "hf:data,split=test", "hf:data,field=id", "hf:data,validation_split=test"]
    prints = [parse_corpus(spec).fingerprint() for spec in specs]
    assert len(set(prints)) == 4
    folder.rename(tmp_path / "elsewhere")
    folder = tmp_path / "elsewhere"
    assert parse_corpus("hf:elsewhere").fingerprint() == prints[0]
    (folder / ".hidden").write_text("x")
    (folder / "README.md").write_text("x")
    assert parse_corpus("hf:elsewhere").fingerprint() == prints[0]
    (folder / "train-2.jsonl").write_text(lines(["one more"]))
    assert parse_corpus("hf:elsewhere").fingerprint() != prints[0]


def test_a_hub_dataset_comes_from_the_cache_where_there_is_no_hub(folder, library_cache, tmp_path):
    list(datasets.load_dataset("data", cache_dir=str(library_cache)))
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
        ("hf:data,field=body", r"train.jsonl, line 1: no field 'body'; the fields are 'id', 'text': name one"),
        ("hf:data,field=id", "train.jsonl, line 1: the field 'id' holds a number, not text"),
        ("hf:data/train.jsonl", "is a file; write 'jsonl:data/train.jsonl'"),
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
        ("train.jsonl", b'{"text": "a"}\n{"text": \n', r"jsonl: data/train.jsonl, line 2 is not JSON"),
        ("train.jsonl", b'{"text": ""}\n', "hf: data, split train holds no text in 'text'"),
        ("a.parquet", b"PAR1 and then nothing", "parquet: data/a.parquet cannot be read: "),
        ("data.py", b"raise SystemExit('run!')", "hf: data holds no data files: it holds data.py"),
    ],
)
def test_folders_that_cannot_be_read(tmp_path, name, content, message):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        documents("hf:data")


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    write_as("saved", tmp_path / "data")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"datasets is not installed; pip install 'spikeless\[data\]'"):
        documents("hf:data")


@pytest.mark.parametrize("content", ["[]", '{"_data_files": [{}]}', "{"])
def test_a_damaged_saved_dataset_is_a_users_error(tmp_path, content):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text(content)
    with pytest.raises(UserError, match="saved"):
        parse_corpus(f"hf:{tmp_path}/saved").fingerprint()
