import hashlib
import json

import numpy as np
import pytest

from spikeless.data import Reading, Tokens, encoding, load_tokenizer, open_shards, write_shards
from spikeless.data.tokenizers._fast import FastTokenizer
from spikeless.errors import UserError

TRAIN = [f"training document {number} " * 20 for number in range(50)]
VALIDATION = ["held out", "and this"]


@pytest.fixture
def folder(tmp_path, byte_tokenizer, monkeypatch):
    monkeypatch.setattr(encoding, "BATCH_BYTES", 3000)
    return write(tmp_path / "shards", byte_tokenizer)


def write(folder, tokenizer, train=TRAIN, **options):
    def documents(part, tally):
        tally["blank"] += 1
        return train() if callable(train) else {"train": train, "validation": VALIDATION}[part]

    write_shards(folder, documents, tokenizer, data="test", identity="test", **options)
    return folder


def ids(tokens):
    return tokens.read(0, len(tokens))


def test_documents_come_back_with_end_of_text_after_each(folder, byte_tokenizer):
    opened = open_shards(folder, byte_tokenizer, verify=True)
    for tokens, documents in ((opened.train, TRAIN), (opened.validation, VALIDATION)):
        flat = [each for text in documents for each in [*byte_tokenizer.encode(text), 256]]
        assert ids(tokens).tolist() == flat
    manifest = opened.manifest
    assert (manifest.train.documents, manifest.validation.documents) == (50, 2)
    assert manifest.train.tokens == len(opened.train)
    assert manifest.train.bytes == sum(len(each.encode()) for each in TRAIN)
    assert manifest.validation.skipped == {"blank": 1}
    assert load_tokenizer(folder).fingerprint() == byte_tokenizer.fingerprint()
    assert (manifest.dtype, manifest.data, manifest.tokenizer) == ("uint16", "test", "bytes")
    raw = (folder / "train-00000.bin").read_bytes()
    assert raw[:4] == b"t\0r\0"  # little endian, two bytes each
    assert manifest.train.shards[0].sha256 == hashlib.sha256(raw).hexdigest()


def test_shards_are_the_same_bytes_every_time(folder, byte_tokenizer, tmp_path):
    again = write(tmp_path / "again", byte_tokenizer)
    for path in folder.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()


def test_several_shards_read_like_one(folder, byte_tokenizer, tmp_path):
    whole = open_shards(folder, byte_tokenizer).train
    many = write(tmp_path / "many", byte_tokenizer, shard_tokens=4000)
    assert len(list(many.glob("train-*.bin"))) == 4
    parts = open_shards(many, byte_tokenizer, verify=True).train
    assert (ids(parts) == ids(whole)).all()


def test_stretches_across_arrays():
    tokens = Tokens([np.arange(0, 3), np.arange(3, 4), np.arange(4, 10)])
    for start in range(10):
        for stop in range(start, 11):
            assert tokens.read(start, stop - start).tolist() == list(range(start, stop))
    with pytest.raises(AssertionError):
        tokens.read(5, 6)


def test_a_large_vocabulary_takes_four_bytes(tmp_path, byte_tokenizer):
    class Large(FastTokenizer):
        vocab_size, reading, special_ids = 1 << 17, Reading(), frozenset()

        def __init__(self):
            self.spec, self.end_of_text = "large", (1 << 17) - 1

        def encode_batch(self, texts, special_tokens=None):
            return [[100_000 + len(text)] for text in texts]

        def fingerprint(self):
            return "large"

        def save(self, folder):
            pass

    folder = write(tmp_path / "large", Large(), train=["abc"])
    assert open_shards(folder, Large()).manifest.dtype == "uint32"
    assert ids(open_shards(folder, Large()).train).tolist() == [100_003, (1 << 17) - 1]


def test_a_crash_in_the_middle_leaves_nothing(tmp_path, byte_tokenizer):
    def stream():
        yield from TRAIN
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write(tmp_path / "inner" / "shards", byte_tokenizer, train=stream)
    assert list((tmp_path / "inner").iterdir()) == []


def test_existing_shards_are_never_written_over(folder, byte_tokenizer):
    with pytest.raises(UserError, match="exists already"):
        write(folder, byte_tokenizer)


def test_documents_are_streamed(tmp_path, byte_tokenizer, monkeypatch):
    monkeypatch.setattr(encoding, "BATCH_BYTES", 1000)
    largest = 0
    encode_batch = FastTokenizer.encode_batch

    def spy(self, texts, special_tokens=None):
        nonlocal largest
        largest = max(largest, sum(map(len, texts)))
        return encode_batch(self, texts, special_tokens)

    monkeypatch.setattr(FastTokenizer, "encode_batch", spy)
    write(tmp_path / "shards", byte_tokenizer)
    assert 0 < largest < 2000


def flip_a_byte(folder):
    path = folder / "train-00000.bin"
    raw = bytearray(path.read_bytes())
    raw[10] ^= 1
    path.write_bytes(raw)


def change_manifest(**changes):
    def change(folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))

    return change


def link_outside(folder):
    path = folder / "train-00000.bin"
    path.rename(folder.parent / "elsewhere.bin")
    path.symlink_to(folder.parent / "elsewhere.bin")


def rename_shard(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace("train-00000.bin", "../train-00000.bin"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_byte, "train-00000.bin does not have the .*manifest says"),
        (lambda folder: (folder / "train-00000.bin").write_bytes(b"\0\0"), "has 2 bytes, but its manifest says"),
        (lambda folder: (folder / "validation-00000.bin").unlink(), "validation-00000.bin is missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "holds no token shards: it has no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "is not valid JSON"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "does not describe token shards of format"),
        (change_manifest(format=0), "of format 3"),
        (change_manifest(train=3), "is not a manifest of token shards"),
        (change_manifest(data_hash="0"), "was changed"),
        (change_manifest(dtype="uint32"), "was changed"),
        (change_manifest(vocab_size=1 << 17), "do not fit into uint16"),
        (change_manifest(data_hash=["0"]), "is not a manifest of token shards"),
        (link_outside, "is a link that leads out of its folder"),
        (rename_shard, "names a file outside its folder"),
    ],
)
def test_damage_is_noticed(folder, byte_tokenizer, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message):
        open_shards(folder, byte_tokenizer, verify=True)


def test_another_tokenizer_is_refused(folder, byte_tokenizer):
    other = FastTokenizer(byte_tokenizer.definition + " ", spec="other")
    with pytest.raises(UserError, match=r"written with another tokenizer \(bytes\) than this one \(other\)"):
        open_shards(folder, other)
