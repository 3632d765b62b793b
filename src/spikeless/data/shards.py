"""Token shards: a corpus as token ids on disk, memory-mapped when read.

A folder holds `train-00000.bin`, `validation-00000.bin`, … (token ids, little endian, two bytes each where
the vocabulary allows it, else four) and `manifest.json`, which says what they hold, with their hashes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np

from spikeless.config import from_dict, to_dict
from spikeless.data.progress import track
from spikeless.data.split import Part
from spikeless.data.tokenizers import Tokenizer
from spikeless.errors import UserError
from spikeless.files import aside, content_hash, read_json, sha256, write_json

__all__ = ["FORMAT", "Manifest", "Shard", "ShardedPart", "Shards", "Tokens", "open_shards", "write_shards"]

FORMAT = 1
MANIFEST = "manifest.json"
SHARD_TOKENS = 1 << 27
"""A shard is closed at the first batch that brings it to this size [tokens]."""
BATCH_CHARACTERS = 1 << 20
"""How much text is encoded at a time [characters]."""
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
    shards: tuple[Shard, ...]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `manifest.json` says."""

    format: int
    data: str
    """The data spec, for people; the content is identified by `data_hash`."""
    tokenizer: str
    tokenizer_fingerprint: str
    vocab_size: int
    dtype: Literal["uint16", "uint32"]
    train: ShardedPart
    validation: ShardedPart
    data_hash: str
    """Identifies every token of both parts, in order, and the tokenizer that they belong to."""


class Tokens:
    """A long row of token ids, in one or several arrays, of which stretches are read."""

    def __init__(self, arrays: Sequence[np.ndarray]):
        self._arrays = tuple(arrays)
        self._starts = np.array([0, *accumulate(map(len, self._arrays))], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, start: int, length: int) -> np.ndarray:
        """Copy `length` tokens from `start` on, as int64; they may lie in several shards."""
        stop = start + length
        assert 0 <= start <= stop <= len(self), f"tokens {start}:{stop} of {len(self)}"
        out, done = np.empty(length, dtype=np.int64), 0
        index = int(np.searchsorted(self._starts, start, side="right")) - 1
        while done < length:
            offset = start + done - int(self._starts[index])
            piece = self._arrays[index][offset : offset + length - done]
            out[done : done + len(piece)] = piece
            done, index = done + len(piece), index + 1
        return out


@dataclass(frozen=True, kw_only=True)
class Shards:
    """An opened folder of token shards."""

    manifest: Manifest
    train: Tokens
    validation: Tokens


def write_shards(
    folder: Path,
    documents: Mapping[Part, Iterable[str]],
    tokenizer: Tokenizer,
    *,
    data: str,
    shard_tokens: int = SHARD_TOKENS,
) -> None:
    """Encode documents, an end-of-text id after each, and publish them as `folder`, whole or not at all.

    Args:
        folder: must not exist yet.
        documents: the training and the validation documents; they are streamed, some at a time.
        tokenizer: its fingerprint goes into the manifest.
        data: the data spec, for the manifest.
        shard_tokens: size at which a shard is closed [tokens].

    Raises:
        UserError: `folder` exists, or it cannot be written.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already; choose another folder for the token shards")
    dtype = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
    with aside(folder) as temporary:
        train, validation = (
            _write_part(temporary, part, documents[part], tokenizer, DTYPES[dtype], shard_tokens)
            for part in ("train", "validation")
        )
        manifest = Manifest(
            format=FORMAT,
            data=data,
            tokenizer=tokenizer.spec,
            tokenizer_fingerprint=tokenizer.fingerprint(),
            vocab_size=tokenizer.vocab_size,
            dtype=dtype,
            train=train,
            validation=validation,
            data_hash=_data_hash(dtype, tokenizer.fingerprint(), train, validation),
        )
        write_json(temporary / MANIFEST, to_dict(manifest))


def open_shards(folder: Path, tokenizer: Tokenizer, *, verify: bool = False) -> Shards:
    """Memory-map a folder of shards, its files' sizes (and hashes, if `verify`) checked against its manifest.

    Raises:
        UserError: something is missing or does not match, or the shards were written with another tokenizer.
    """
    manifest = _read_manifest(folder)
    if manifest.tokenizer_fingerprint != tokenizer.fingerprint():
        raise UserError(
            f"the shards in {folder} were written with another tokenizer ({manifest.tokenizer}) than this "
            f"one ({tokenizer.spec}); open them with the tokenizer they were written with, or write them anew"
        )
    dtype = DTYPES[manifest.dtype]
    train, validation = (
        Tokens([_open_shard(folder / shard.file, shard, dtype, verify) for shard in part.shards])
        for part in (manifest.train, manifest.validation)
    )
    return Shards(manifest=manifest, train=train, validation=validation)


def _write_part(
    folder: Path,
    part: Part,
    documents: Iterable[str],
    tokenizer: Tokenizer,
    dtype: np.dtype,
    shard_tokens: int,
) -> ShardedPart:
    count, shards, batches = 0, [], _batches(track(documents, f"encoding {part} documents"))
    batch = next(batches, None)
    while batch:
        path, tokens = folder / f"{part}-{len(shards):05d}.bin", 0
        with path.open("wb") as file:
            while batch and tokens < shard_tokens:
                for ids in tokenizer.encode_batch(batch):
                    np.array([*ids, tokenizer.end_of_text], dtype=dtype).tofile(file)
                    tokens += len(ids) + 1
                count += len(batch)
                batch = next(batches, None)
        shards.append(Shard(file=path.name, tokens=tokens, sha256=sha256(path)))
    return ShardedPart(documents=count, tokens=sum(shard.tokens for shard in shards), shards=tuple(shards))


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    batch, characters = [], 0
    for document in documents:
        batch.append(document)
        characters += len(document)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    data = read_json(path)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UserError(f"{path} does not describe token shards of format {FORMAT}; write them anew")
    try:
        manifest = from_dict(data, Manifest)
    except UserError as error:
        raise UserError(f"{path} is not a manifest of token shards: {error.__cause__ or error}") from None
    shards = (*manifest.train.shards, *manifest.validation.shards)
    if any(Path(shard.file).name != shard.file for shard in shards):
        raise UserError(f"{path} names a file outside its folder")
    expected = _data_hash(manifest.dtype, manifest.tokenizer_fingerprint, manifest.train, manifest.validation)
    if manifest.data_hash != expected:
        raise UserError(f"{path} was changed: its data_hash does not match the shards that it lists")
    return manifest


def _open_shard(path: Path, shard: Shard, dtype: np.dtype, verify: bool) -> np.ndarray:
    expected = shard.tokens * dtype.itemsize
    actual = path.stat().st_size if path.is_file() else None
    if actual != expected or not actual:
        found = "is missing" if actual is None else f"has {actual} bytes"
        raise UserError(f"{path} {found}, but its manifest says {expected} bytes; write the shards anew")
    if verify and sha256(path) != shard.sha256:
        raise UserError(f"{path} does not have the content that its manifest says (SHA-256); write the shards anew")
    return np.memmap(path, dtype=dtype, mode="r")


def _data_hash(dtype: str, tokenizer: str, train: ShardedPart, validation: ShardedPart) -> str:
    hashes = (each for part in (train, validation) for each in ("part", *(shard.sha256 for shard in part.shards)))
    return content_hash(dtype, tokenizer, *hashes)
