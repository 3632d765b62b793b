"""The text of token shards that `spikeless data prepare` wrote."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from spikeless.data.documents import Tally
from spikeless.data.shards import MIXTURE, Shards, Tokens, open_shards, read_manifest
from spikeless.data.tokenizers import Tokenizer, load_tokenizer
from spikeless.errors import UserError

__all__ = ["PreparedShards"]

CHUNK_TOKENS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class PreparedShards:
    """Documents decoded from their tokens, for whoever wants text; training takes the tokens as they are.

    What they begin with is left out.

    They are what was prepared if the tokenizer is without loss, as ours are.
    """

    usage: ClassVar[str] = "shards:DIR"

    folder: str

    def documents(self, tally: Tally | None = None) -> Iterator[str]:
        """Stream the training documents; nothing is skipped or repaired any more.

        Raises:
            UserError: it is no folder of token shards, or a damaged one.
        """
        shards, tokenizer = self._open()
        return _decoded(shards.train, tokenizer)

    def validation_documents(self, tally: Tally | None = None) -> Iterator[str] | None:
        """Stream the documents that were held out.

        Raises:
            UserError: as for `documents`.
        """
        shards, tokenizer = self._open()
        return _decoded(shards.validation, tokenizer)

    def selection(self) -> str:
        """Nothing that the spec does not say."""
        return ""

    def fingerprint(self) -> str:
        """The data hash of the shards.

        Raises:
            UserError: as for `documents`.
        """
        return read_manifest(self._path).data_hash

    @property
    def _path(self) -> Path:
        return Path(os.path.expanduser(self.folder))  # noqa: PTH111, which may raise

    def _open(self) -> tuple[Shards, Tokenizer]:
        if (self._path / MIXTURE).exists():
            raise UserError(f"{self._path} is a mixture; name one of its sources: shards:{self._path}/0, …")
        read_manifest(self._path)
        tokenizer = load_tokenizer(self._path)
        return open_shards(self._path, tokenizer), tokenizer


def _decoded(tokens: Tokens, tokenizer: Tokenizer) -> Iterator[str]:
    begun, before = np.empty(0, dtype=np.int64), list(tokenizer.reading.beginning)
    for start in range(0, len(tokens), CHUNK_TOKENS):
        chunk = tokens.read(start, min(CHUNK_TOKENS, len(tokens) - start))
        *whole, rest = np.split(chunk, np.flatnonzero(chunk == tokenizer.end_of_text) + 1)
        for document in whole:
            ids = np.concatenate([begun, document[:-1]])
            yield tokenizer.decode(ids[len(before) :] if ids[: len(before)].tolist() == before else ids)
            begun = begun[:0]
        begun = np.concatenate([begun, rest])
