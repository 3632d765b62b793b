"""Killed and started again: the same bytes, and nothing is encoded twice."""

import os
import random
import signal
import subprocess
import sys
import textwrap

import pytest

from spikeless.data import encoding, open_shards, write_shards
from spikeless.data.tokenizers._fast import FastTokenizer
from spikeless.errors import SpikelessWarning, UserError

CLI = "from spikeless.cli import main; main()"
WRITE = """
    import os, signal, sys
    from pathlib import Path
    from spikeless.data import encoding, parse_tokenizer, write_shards

    encoding.BATCH_BYTES = 500
    die_after = int(sys.argv[2])

    def documents(part, tally):
        for number in range(200 if part == "train" else 30):
            if part + str(number) == f"{sys.argv[3]}{die_after}":
                os.kill(os.getpid(), signal.SIGKILL)
            yield f"{part} document {number} " * (number % 7 + 1)

    tokenizer = parse_tokenizer("bytes").build(lambda: iter(()), "")
    write_shards(Path(sys.argv[1]), documents, tokenizer, data="test", identity="test", shard_tokens=2000)
"""


def write_in_a_process(folder, die_after=-1, part="train"):
    command = [sys.executable, "-c", textwrap.dedent(WRITE), str(folder), str(die_after), part]
    return subprocess.run(command, check=False).returncode


def partial(folder):
    return folder.with_name(f".{folder.name}.partial")


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def documents(part, tally):
    for number in range(200 if part == "train" else 30):
        yield f"{part} document {number} " * (number % 7 + 1)


def write(folder, tokenizer, stream=documents, identity="test"):
    write_shards(folder, stream, tokenizer, data="test", identity=identity, shard_tokens=2000)


@pytest.fixture
def whole(tmp_path, byte_tokenizer, monkeypatch):
    monkeypatch.setattr(encoding, "BATCH_BYTES", 500)
    write(tmp_path / "whole", byte_tokenizer)
    return content(tmp_path / "whole")


@pytest.mark.parametrize(("die_after", "part"), [(150, "train"), (20, "validation")])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, byte_tokenizer, whole, monkeypatch, die_after, part):
    folder = tmp_path / "killed"
    assert write_in_a_process(folder, die_after, part) == -signal.SIGKILL
    assert not folder.exists()
    assert len(list(partial(folder).glob("*.bin"))) > 3
    encoded, encode_batch = [], FastTokenizer.encode_batch
    monkeypatch.setattr(
        FastTokenizer, "encode_batch", lambda self, texts, how: encoded.extend(texts) or encode_batch(self, texts, how)
    )
    write(folder, byte_tokenizer)
    assert content(folder) == whole
    assert not partial(folder).exists()
    assert len(encoded) < 130


def test_what_was_left_of_other_data_is_not_used(tmp_path, byte_tokenizer, whole):
    folder = tmp_path / "killed"
    write_in_a_process(folder, 150)
    with pytest.warns(SpikelessWarning, match="holds something unfinished of other data"):
        write(folder, byte_tokenizer, identity="other")
    assert len(open_shards(folder, byte_tokenizer, verify=True).train) > 0


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"identity": 3}', '{"finished": [], "identity": "x", "more": 1}'])
def test_a_damaged_journal_begins_anew(tmp_path, byte_tokenizer, whole, damage):
    folder = tmp_path / "killed"
    write_in_a_process(folder, 150)
    (partial(folder) / "journal.json").write_text(damage)
    write(folder, byte_tokenizer)
    assert content(folder) == whole


def test_bad_input_leaves_nothing(tmp_path, byte_tokenizer, whole):
    def stream(part, tally):
        yield from documents(part, tally)
        raise UserError("line 7 is bad")

    with pytest.raises(UserError, match="line 7 is bad"):
        write(tmp_path / "inner" / "bad", byte_tokenizer, stream)
    assert list((tmp_path / "inner").iterdir()) == []


def test_a_full_disk_is_told_and_can_be_gone_on_from(tmp_path, byte_tokenizer, whole, monkeypatch):
    replace, calls = os.replace, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) > 5:
            raise OSError(28, "No space left on device", str(tmp_path / "full"))
        return replace(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(UserError, match="No space left on device"):
            write(tmp_path / "full", byte_tokenizer)
    assert not (tmp_path / "full").exists()
    write(tmp_path / "full", byte_tokenizer)
    assert content(tmp_path / "full") == whole


def test_any_number_of_workers_writes_the_same_bytes(tmp_path):
    (tmp_path / "words.txt").write_text("\n\n".join(f"paragraph {i} of many words " * 30 for i in range(4000)))
    for workers in ("1", "2", "5"):
        command = [sys.executable, "-c", CLI, "data", "prepare", "text:words.txt", "--out", workers]
        subprocess.run([*command, "--tokenizer", "bpe:400", "--workers", workers], check=True, capture_output=True)
    assert content(tmp_path / "1") == content(tmp_path / "2") == content(tmp_path / "5")


def test_mutated_manifests_are_refused_or_harmless(tmp_path, byte_tokenizer, whole):
    """2,000 mutations of bytes and of structure: a message, or the same tokens."""
    folder = tmp_path / "whole"
    raw, generator = whole["manifest.json"], random.Random(0)
    expected = open_shards(folder, byte_tokenizer).train.read(0, 1000).tolist()
    opened = 0
    for _ in range(2000):
        (folder / "manifest.json").write_bytes(mutated(raw, generator))
        try:
            shards = open_shards(folder, byte_tokenizer)
        except UserError:
            continue
        opened += 1
        assert shards.train.read(0, 1000).tolist() == expected
    assert opened < 1000


NASTY = [b"-1", b"0", b"1e999", b"99999999999999999999999", b"null", b"true", b'"../x"', b'"/etc/passwd"', b"[]", b"{}"]
NASTY += [
    b'"\\u0000"',
    b"[" * 100_000,
    b'"train-00001.bin"',
    b"\xff\xfe",
    b"1.5",
    b'"uint32"',
    b'"' + b"9" * 5000 + b'"',
]


def mutated(raw, generator):
    """Some bytes flipped, removed or doubled, or a value replaced by a nasty one."""
    raw = bytearray(raw)
    for _ in range(generator.randint(1, 3)):
        start = generator.randrange(len(raw))
        kind = generator.randrange(4)
        if kind == 0:
            raw[start] ^= 1 << generator.randrange(8)
        elif kind == 1:
            del raw[start : start + generator.randint(1, 40)]
        elif kind == 2:
            raw[start:start] = raw[start : start + generator.randint(1, 200)]
        else:
            colon = raw.find(b": ", start)
            end = min((e for e in (raw.find(b",", colon), raw.find(b"\n", colon)) if e > 0), default=len(raw))
            raw[colon + 2 : end] = generator.choice(NASTY)
        raw = raw or bytearray(b"x")
    return bytes(raw)


def test_a_finished_shard_that_was_cut_is_written_anew(tmp_path, byte_tokenizer, whole):
    folder = tmp_path / "killed"
    write_in_a_process(folder, 150)
    path = partial(folder) / "train-00001.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.warns(SpikelessWarning, match="or damaged"):
        write(folder, byte_tokenizer)
    assert content(folder) == whole
