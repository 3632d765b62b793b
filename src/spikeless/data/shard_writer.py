"""Token shards are written one after another into a hidden folder, and appear when all are there.

A journal in that folder names the shards that are finished. Killed and started again, the writer reads past the
documents that these hold and goes on behind them, so the result is the same to the last byte.
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from spikeless.config import from_dict, to_dict
from spikeless.data.documents import Document, Kind, Tally
from spikeless.data.encoding import Encoded, encode_documents
from spikeless.data.progress import meter
from spikeless.data.shards import DTYPES, FORMAT, MANIFEST, Manifest, Shard, ShardedPart, dtype_for, hash_of
from spikeless.data.split import Part
from spikeless.data.tokenizers import Tokenizer
from spikeless.errors import SpikelessWarning, UserError
from spikeless.files import content_hash, read_json, remove, resumable, sync, write_json

__all__ = ["write_shards"]

SHARD_TOKENS = 1 << 27
"""A shard is closed at the first end of a document, at the end of a batch, that brings it to this size [tokens]."""
JOURNAL = "journal.json"

Documents = Callable[[Part, Tally], Iterable[Document]]
"""Streams the documents of a part, always the same ones, and counts what it skips."""


@dataclass(frozen=True, kw_only=True)
class _Finished:
    """A shard that is on the disk."""

    part: Part
    shard: Shard
    documents: int
    bytes: int
    special_tokens: int
    kind: Kind
    inner_ends: int


@dataclass(frozen=True, kw_only=True)
class _Journal:
    """What is finished, and of what."""

    identity: str
    finished: tuple[_Finished, ...] = ()


def write_shards(
    folder: Path,
    documents: Documents,
    tokenizer: Tokenizer,
    *,
    data: str,
    identity: str,
    selection: str = "",
    shard_tokens: int = SHARD_TOKENS,
) -> None:
    """Encode documents and publish their shards as `folder`, whole or not at all; goes on where it was killed.

    Args:
        folder: must not exist yet.
        documents: streams the training and the validation documents.
        tokenizer: reads the documents as its `reading` says; it is saved in the folder too.
        data: the data spec, for the manifest.
        identity: identifies the content of the documents; what another one left unfinished is removed.
        selection: what of the data is read and what is not, for the manifest.
        shard_tokens: size at which a shard is closed [tokens].

    Raises:
        UserError: `folder` exists, it cannot be written, or from the documents.

    Warns:
        SpikelessWarning: something unfinished of other data is removed.
    """
    begun = content_hash(str(FORMAT), identity, tokenizer.fingerprint(), repr(tokenizer.reading), str(shard_tokens))
    with resumable(folder) as work:
        writer = _Writer(
            work, documents, tokenizer, _take_up(work, begun, DTYPES[dtype_for(tokenizer)].itemsize), shard_tokens
        )
        train, validation = writer.write("train"), writer.write("validation")
        tokenizer.save(work)
        dtype = dtype_for(tokenizer)
        manifest = Manifest(
            format=FORMAT,
            data=data,
            documents_hash=identity,
            tokenizer=tokenizer.spec,
            tokenizer_fingerprint=tokenizer.fingerprint(),
            vocab_size=tokenizer.vocab_size,
            dtype=dtype,
            train=train,
            validation=validation,
            data_hash=hash_of(dtype, tokenizer.fingerprint(), train, validation),
            selection=selection,
            reading=tokenizer.reading,
        )
        write_json(work / MANIFEST, to_dict(manifest))
        (work / JOURNAL).unlink(missing_ok=True)


def _take_up(work: Path, identity: str, token_bytes: int) -> _Journal:
    """What was finished before; the folder is emptied if that was of other data, or is damaged."""
    try:
        journal = from_dict(read_json(work / JOURNAL), _Journal)
        sizes = [(work / each.shard.file, each.shard.tokens * token_bytes) for each in journal.finished]
        if journal.identity == identity and all(path.is_file() and path.stat().st_size == size for path, size in sizes):
            return journal
        warnings.warn(
            f"{work} holds something unfinished of other data, or damaged; beginning anew",
            SpikelessWarning,
            stacklevel=3,
        )
    except UserError:
        pass  # nothing was finished
    for path in work.iterdir():
        if path.name != ".lock":
            remove(path)
    return _Journal(identity=identity)


class _Writer:
    """Writes the parts one after another, and keeps the journal."""

    def __init__(
        self, work: Path, documents: Documents, tokenizer: Tokenizer, journal: _Journal, shard_tokens: int
    ) -> None:
        self._work, self._documents, self._tokenizer = work, documents, tokenizer
        self._journal, self._shard_tokens = journal, shard_tokens

    def write(self, part: Part) -> ShardedPart:
        """All shards of a part, those that are there already passed over."""
        tally: Tally = Counter()
        with meter(f"encoding {part} documents") as progress:
            for each in self._finished(part):
                progress(each.documents, each.bytes, each.shard.tokens)
            behind = islice(self._documents(part, tally), sum(each.documents for each in self._finished(part)), None)
            shard = None
            for batch in encode_documents(behind, self._tokenizer):
                shard = shard or _OpenShard(self._work, part, len(self._finished(part)), self._tokenizer)
                shard.write(batch)
                progress(batch.documents, batch.bytes, len(batch.ids))
                if batch.ends and shard.tokens >= self._shard_tokens:
                    self._note(shard.finish())
                    shard = None
            if shard:
                self._note(shard.finish())
        finished = self._finished(part)
        return ShardedPart(
            documents=sum(each.documents for each in finished),
            tokens=sum(each.shard.tokens for each in finished),
            bytes=sum(each.bytes for each in finished),
            skipped=dict(sorted(tally.items())),
            shards=tuple(each.shard for each in finished),
            special_tokens=sum(each.special_tokens for each in finished),
            kind=finished[0].kind if finished else "text",
            inner_ends=sum(each.inner_ends for each in finished),
        )

    def _finished(self, part: Part) -> list[_Finished]:
        return [each for each in self._journal.finished if each.part == part]

    def _note(self, finished: _Finished) -> None:
        self._journal = replace(self._journal, finished=(*self._journal.finished, finished))
        write_json(self._work / JOURNAL, to_dict(self._journal))


class _OpenShard:
    """A file of token ids that grows."""

    def __init__(self, work: Path, part: Part, number: int, tokenizer: Tokenizer) -> None:
        self._part: Part = part
        self._path = work / f"{part}-{number:05d}.bin"
        self._dtype, self._file, self._digest = DTYPES[dtype_for(tokenizer)], self._path.open("wb"), hashlib.sha256()
        self.tokens = self._documents = self._bytes = self._special_tokens = self._inner_ends = 0
        self._kind: Kind = "text"

    def write(self, batch: Encoded) -> None:
        """Append a batch."""
        raw = batch.ids.astype(self._dtype).data
        self._file.write(raw)
        self._digest.update(raw)
        self.tokens += len(batch.ids)
        self._documents += batch.documents
        self._bytes += batch.bytes
        self._special_tokens += batch.special_tokens
        self._inner_ends += batch.inner_ends
        self._kind = batch.kind

    def finish(self) -> _Finished:
        """Bring it to the disk."""
        self._file.close()
        sync(self._path)
        shard = Shard(file=self._path.name, tokens=self.tokens, sha256=self._digest.hexdigest())
        return _Finished(
            part=self._part,
            shard=shard,
            documents=self._documents,
            bytes=self._bytes,
            special_tokens=self._special_tokens,
            kind=self._kind,
            inner_ends=self._inner_ends,
        )
