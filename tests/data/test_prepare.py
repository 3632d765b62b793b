import subprocess
import sys
import textwrap

import pytest

from spikeless.data import Sampler, parse_corpus, prepare
from spikeless.data.corpora.text import Text
from spikeless.data.prepare import prepare_folder
from spikeless.data.split import Split
from spikeless.data.tokenizers.bpe import Bpe
from spikeless.errors import SpikelessWarning, UserError

SPEC = "text:notes/*.txt"


def ids(tokens):
    return tokens.read(0, len(tokens)).tolist()


def texts(prepared, tokens):
    whole = prepared.tokenizer.decode(ids(tokens))
    return whole.split("<|endoftext|>")[:-1]


def test_every_document_is_on_one_side(notes):
    prepared = prepare(SPEC, "bytes", validation_fraction=0.2)
    train, validation = texts(prepared, prepared.train), texts(prepared, prepared.validation)
    assert sorted(train + validation) == sorted(path.read_text() for path in notes.iterdir())
    assert train and validation


def test_bpe_learns_from_the_training_documents_alone(tmp_path):
    (tmp_path / "a.txt").write_text("abababab cdcdcdcd " * 50)
    (tmp_path / "b.txt").write_text("xyxyxyxy " * 50)
    tokenizer = prepare("text:a.txt,validation=b.txt", "bpe:262").tokenizer
    assert len(tokenizer.encode("xyxyxyxy")) == 8
    assert len(tokenizer.encode("abababab")) < 8


def test_bpe_never_sees_the_documents_that_are_split_off(notes, monkeypatch):
    seen, learn = [], Bpe._learn

    def spy(self, documents):
        seen.extend(documents)
        return learn(self, iter(seen))

    monkeypatch.setattr(Bpe, "_learn", spy)
    prepared = prepare(SPEC, "bpe:300")
    assert seen == texts(prepared, prepared.train)


def test_the_second_time_is_read_from_the_cache(notes, monkeypatch):
    first = prepare(SPEC, "bpe:300")
    monkeypatch.setattr(Text, "documents", None)  # reading the documents again would fail
    second = prepare(SPEC, "bpe:300")
    assert second.data_hash == first.data_hash
    assert ids(second.train) == ids(first.train)


def test_another_cache_gives_the_same_data(notes, monkeypatch, tmp_path):
    first = prepare(SPEC, "bpe:300")
    monkeypatch.setenv("SPIKELESS_CACHE", str(tmp_path / "other"))
    second = prepare(SPEC, "bpe:300")
    assert (second.data_hash, ids(second.validation)) == (first.data_hash, ids(first.validation))


def test_the_hash_follows_text_split_and_tokenizer(notes):
    hashes = [
        prepare(SPEC, "bpe:300").data_hash,
        prepare(SPEC, "bytes").data_hash,
        prepare(SPEC, "bytes", validation_fraction=0.5).data_hash,
    ]
    (notes / "00.txt").write_text("changed")
    hashes.append(prepare(SPEC, "bytes").data_hash)
    assert len(set(hashes)) == 4


def test_a_run_brings_its_own_tokenizer(notes):
    first = prepare(SPEC, "bpe:300")
    (notes / "new.txt").write_text("something new " * 30)
    second = prepare(SPEC, first.tokenizer)
    assert second.tokenizer.fingerprint() == first.tokenizer.fingerprint()
    assert second.data_hash != first.data_hash


@pytest.mark.parametrize("damage", [lambda raw: raw[:-2], lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), None])
def test_damaged_shards_are_made_anew_loudly(notes, cache, damage):
    first = prepare(SPEC, "bytes")
    before = ids(first.train)
    (path,) = cache.glob("shards/*/content/train-00000.bin")
    raw = path.read_bytes()
    path.unlink()
    if damage:
        path.write_bytes(damage(raw))
    with pytest.warns(SpikelessWarning, match=r"damaged cache.*train-00000.bin"):
        second = prepare(SPEC, "bytes")
    assert ids(second.train) == before
    assert path.read_bytes() == raw
    prepare(SPEC, "bytes")  # and is whole again: a warning would fail the test


def test_a_failure_leaves_nothing_in_the_cache(notes, cache):
    (notes / "99.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"99.txt: invalid UTF-8 at byte 0"):
        prepare(SPEC, "bytes")
    assert [path.name for path in cache.rglob("*") if path.is_file()] == [".lock"]
    assert not list(cache.rglob("*content*"))


def test_what_a_killed_process_left_is_swept_up(notes, cache):
    prepare(SPEC, "bytes")
    (content,) = cache.glob("shards/*/content")
    leftover = content.with_name(".content.0123abcd.tmp")
    content.rename(leftover)
    prepare(SPEC, "bytes")
    assert content.exists() and not leftover.exists()


def test_processes_at_the_same_time_agree(notes, cache):
    code = f"""
        from spikeless.data import prepare
        print(prepare({SPEC!r}, "bpe:300").data_hash)
    """
    command = [sys.executable, "-W", "error::UserWarning", "-c", textwrap.dedent(code)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert answers[0] == answers[1] == prepare(SPEC, "bpe:300").data_hash + "\n"


def test_a_cache_that_cannot_be_written_to(notes, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPIKELESS_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot write to"):
        prepare(SPEC, "bytes")


def test_a_blank_validation_file_and_a_single_word(tmp_path):
    (tmp_path / "a.txt").write_text("some text to train on")
    (tmp_path / "b.txt").write_text("\n")
    with pytest.raises(UserError, match=r"'b.txt'"):
        prepare("text:a.txt,validation=b.txt", "bytes")
    (tmp_path / "c.txt").write_text("word")
    with pytest.raises(UserError, match="one document"):
        prepare("text:c.txt", "bytes")


def test_from_a_spec_to_a_batch():
    prepared = prepare("pydocs:json+email", "bpe:512")
    inputs, targets = Sampler(prepared.train, sequence_length=16, seed=0).batch(step=0, batch_size=4)
    assert inputs.shape == targets.shape == (4, 16)
    assert int(targets.max()) < prepared.tokenizer.vocab_size
    assert len(prepared.tokenizer.decode(prepared.validation.read(0, 50).tolist())) >= 50


@pytest.mark.slow
def test_the_default_corpus_is_large_enough():
    prepared = prepare("pydocs", "bpe:2048")
    assert len(prepared.train) > 2_000_000
    assert len(prepared.validation) >= 1 << 16


def test_files_that_change_while_they_are_read_are_noticed(notes, monkeypatch):
    documents = Split.documents

    def changing(self, part, tally=None):
        yield from documents(self, part, tally)
        (notes / "00.txt").write_text("something else, at the wrong time")

    monkeypatch.setattr(Split, "documents", changing)
    with pytest.raises(UserError, match="files changed while they were read"):
        prepare("text:notes/*.txt", "bytes")
    monkeypatch.undo()


def test_what_is_skipped_is_counted_once(notes, tmp_path):
    for number in range(7):
        (notes / f"blank-{number}.txt").write_text(" \n")
    with pytest.warns(
        SpikelessWarning, match=r"notes/\*.txt: 7 of 47 documents \(14.9 %\) were skipped or .*: blank 7"
    ):
        (manifest,) = prepare_folder("text:notes/*.txt", "bytes", tmp_path / "out")
    assert (manifest.train.skipped, manifest.validation.skipped) == ({"blank": 7}, {})
    assert manifest.selection == "47 files"


@pytest.mark.parametrize(("blank", "loud"), [(2, False), (3, True)])
def test_from_one_in_twenty_on_what_was_skipped_is_warned_of(notes, blank, loud):
    for number in range(blank):
        (notes / f"blank-{number}.txt").write_text("")
    if loud:
        with pytest.warns(SpikelessWarning, match="3 of 43 documents"):
            source = prepare(SPEC, "bytes").sources[0]
        with pytest.warns(SpikelessWarning, match="3 of 43 documents"):  # from the cache, too
            prepare(SPEC, "bytes")
    else:
        source = prepare(SPEC, "bytes").sources[0]
    assert (source.data, source.train.skipped, source.validation.skipped) == (SPEC, {"blank": blank}, {})


def test_a_link_to_the_same_file_is_one_document(notes):
    (notes / "self").symlink_to(notes)
    (notes / "again.txt").symlink_to(notes / "01.txt")
    corpus = parse_corpus("text:notes/**/*.txt")
    assert len(list(corpus.documents())) == 40


def test_line_ends_are_kept(notes):
    (notes / "00.txt").write_bytes(b"one\r\ntwo\rthree\n")
    assert "one\r\ntwo\rthree\n" in list(parse_corpus("text:notes/*.txt").documents())
