"""Token shards: a corpus as token ids on disk, memory-mapped when read.

A folder holds `train-00000.bin`, `validation-00000.bin`, … (token ids, little endian, two bytes each where
the vocabulary allows it, else four), `manifest.json`, which says what they hold, with their hashes, and the tokenizer.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np

from spikeless.config import from_dict
from spikeless.data.documents import Kind
from spikeless.data.reading import Reading
from spikeless.data.tokenizers import Tokenizer
from spikeless.errors import UserError
from spikeless.files import content_hash, read_json, sha256
from spikeless.words import counted

__all__ = [
    "DTYPES",
    "FORMAT",
    "MANIFEST",
    "Manifest",
    "Shard",
    "ShardedPart",
    "Shards",
    "Tokens",
    "dtype_for",
    "hash_of",
    "open_shards",
    "read_manifest",
]

FORMAT = 3
READABLE = (2, 3)
"""Format 2, of version 0.1.0, records no reading: all were read in one way."""
MANIFEST = "manifest.json"
MIXTURE = "mixture.json"
"""Instead of a manifest: the folder holds several of shards."""
DTYPES = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file of token ids."""

    file: str
    tokens: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ShardedPart:
    """The training or the validation part."""

    documents: int
    tokens: int
    bytes: int
    """Of the documents' text in UTF-8; end-of-text, and what a document begins with, add none."""
    skipped: dict[str, int]
    """What the corpus skipped or repaired, by kind [documents]."""
    shards: tuple[Shard, ...]
    special_tokens: int = 0
    """How many special tokens the documents' text spelled [tokens]."""
    kind: Kind = "text"
    """What the documents were; of token ids the bytes are not known, and 0."""
    inner_ends: int = 0
    """End-of-text ids inside of documents, which a chat template or token ids may have [tokens]."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `manifest.json` says."""

    format: int
    data: str
    """The data spec, for people; the content is identified by `data_hash`."""
    documents_hash: str
    """Identifies the documents and how they were split."""
    tokenizer: str
    tokenizer_fingerprint: str
    vocab_size: int
    dtype: Literal["uint16", "uint32"]
    train: ShardedPart
    validation: ShardedPart
    data_hash: str
    """Identifies every token of both parts, in order, and the tokenizer that they belong to."""
    selection: str = ""
    """What of the data was read and what was not, as far as the spec does not say it."""
    reading: Reading = Reading()
    """How the documents were read."""


class Tokens:
    """A long row of token ids, in one or several arrays, of which stretches are read.

    Args:
        arrays: the ids, one after another.
        vocab_size: no id that is read may reach it, if it is given [tokens].
    """

    def __init__(self, arrays: Sequence[np.ndarray], vocab_size: int | None = None):
        self._arrays, self._vocab_size = tuple(arrays), vocab_size
        self._starts = np.array([0, *accumulate(map(len, self._arrays))], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def largest(self) -> int:
        """The largest id; all are read."""
        return max((int(each.max()) for each in self._arrays if len(each)), default=-1)

    def read(self, start: int, length: int) -> np.ndarray:
        """Copy `length` tokens from `start` on, as int64; they may lie in several shards.

        Raises:
            UserError: an id is not in the vocabulary.
        """
        stop = start + length
        assert 0 <= start <= stop <= len(self), f"tokens {start}:{stop} of {len(self)}"
        out, done = np.empty(length, dtype=np.int64), 0
        index = int(np.searchsorted(self._starts, start, side="right")) - 1
        while done < length:
            offset = start + done - int(self._starts[index])
            piece = self._arrays[index][offset : offset + length - done]
            out[done : done + len(piece)] = piece
            done, index = done + len(piece), index + 1
        if self._vocab_size is not None and length and out.max() >= self._vocab_size:
            raise UserError(
                f"the token shards hold the id {out.max()} at or behind token {start}, but the vocabulary has "
                f"{counted(self._vocab_size, 'token')}; they are damaged: "
                "`spikeless data inspect DIR --verify` tells where"
            )
        return out


@dataclass(frozen=True, kw_only=True)
class Shards:
    """An opened folder of token shards."""

    manifest: Manifest
    train: Tokens
    validation: Tokens


def open_shards(folder: Path, tokenizer: Tokenizer, *, verify: bool = False) -> Shards:
    """Memory-map a folder of shards, its files' sizes (and hashes, if `verify`) checked against its manifest.

    Raises:
        UserError: something is missing or does not match, or the shards were written with another tokenizer.
    """
    manifest = read_manifest(folder)
    if manifest.tokenizer_fingerprint != tokenizer.fingerprint():
        raise UserError(
            f"the shards in {folder} were written with another tokenizer ({manifest.tokenizer}) than this "
            f"one ({tokenizer.spec}); open them with the tokenizer they were written with, or write them anew"
        )
    if manifest.reading.beginning != tokenizer.reading.beginning:
        here, there = (tokenizer.decode(each.reading.beginning) or "nothing" for each in (manifest, tokenizer))
        raise UserError(
            f"the documents of the shards in {folder} begin with {here}, those of the model or of other data with "
            f"{there}; prepare them anew with its tokenizer"
        )
    dtype = DTYPES[manifest.dtype]
    train, validation = (
        Tokens([_open_shard(folder / shard.file, shard, dtype, verify) for shard in part.shards], tokenizer.vocab_size)
        for part in (manifest.train, manifest.validation)
    )
    return Shards(manifest=manifest, train=train, validation=validation)


def read_manifest(folder: Path) -> Manifest:
    """What `manifest.json` says, checked against itself; no shard is opened.

    Raises:
        UserError: it is missing, malformed, contradicts itself, or names a file outside its folder.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(
            f"{folder} holds no token shards: it has no {MANIFEST}; give a folder of `spikeless data prepare`"
        )
    data = read_json(path)
    if not isinstance(data, dict) or data.get("format") not in READABLE:
        raise UserError(f"{path} does not describe token shards of format {FORMAT}; write them anew")
    try:
        manifest = from_dict(data, Manifest)
    except UserError as error:
        raise UserError(f"{path} is not a manifest of token shards: {error.__cause__ or error}") from None
    shards = (*manifest.train.shards, *manifest.validation.shards)
    names = Counter(shard.file for shard in shards)
    for shard in shards:
        if not re.fullmatch(r"(train|validation)-[0-9]{5,9}\.bin", shard.file):
            raise UserError(f"{path} names a file outside its folder: {shard.file[:80]!r}")
        if shard.tokens < 1 or names[shard.file] > 1:
            raise UserError(f"{path} is damaged: {shard.file!r} with {counted(shard.tokens, 'token')} cannot be")
    for part in (manifest.train, manifest.validation):
        if part.tokens != sum(shard.tokens for shard in part.shards) or min(part.documents, part.bytes) < 0:
            raise UserError(f"{path} is damaged: its counts contradict each other")
    if not 0 < manifest.vocab_size <= np.iinfo(DTYPES[manifest.dtype]).max + 1:
        raise UserError(f"{path} is damaged: {manifest.vocab_size} tokens do not fit into {manifest.dtype}")
    expected = hash_of(manifest.dtype, manifest.tokenizer_fingerprint, manifest.train, manifest.validation)
    if manifest.data_hash != expected:
        raise UserError(f"{path} was changed: its data_hash does not match the shards that it lists")
    return manifest


def _open_shard(path: Path, shard: Shard, dtype: np.dtype, verify: bool) -> np.ndarray:
    expected = shard.tokens * dtype.itemsize
    if not path.resolve().is_relative_to(path.parent.resolve()):
        raise UserError(f"{path} is a link that leads out of its folder; copy the file into it")
    actual = path.stat().st_size if path.is_file() else None
    if actual != expected or not actual:
        found = "is missing" if actual is None else f"has {counted(actual, 'byte')}"
        raise UserError(f"{path} {found}, but its manifest says {counted(expected, 'byte')}; write the shards anew")
    if verify and sha256(path) != shard.sha256:
        raise UserError(f"{path} does not have the content that its manifest says (SHA-256); write the shards anew")
    return np.memmap(path, dtype=dtype, mode="r")


def dtype_for(tokenizer: Tokenizer) -> Literal["uint16", "uint32"]:
    """The narrowest type that holds the vocabulary."""
    return "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"


def hash_of(dtype: str, tokenizer: str, train: ShardedPart, validation: ShardedPart) -> str:
    """Identify every token of both parts, in order, and the tokenizer that they belong to."""
    hashes = (each for part in (train, validation) for each in ("part", *(shard.sha256 for shard in part.shards)))
    return content_hash(dtype, tokenizer, *hashes)
