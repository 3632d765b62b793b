"""Byte-level BPE, learnt from the training documents."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from spikeless.data.cache import cached
from spikeless.data.progress import track
from spikeless.data.tokenizers._fast import END_OF_TEXT, FastTokenizer
from spikeless.data.tokenizers._folder import read_tokenizer
from spikeless.errors import UserError
from spikeless.files import aside, content_hash

__all__ = ["Bpe"]

BYTES = 256
LEARNT_CHARACTERS = 1 << 27
"""Of a larger corpus a sample is learnt from: the words of all of it would take gigabytes [characters]."""
PIECE_CHARACTERS = 1 << 20
OVERHEAD = 150
"""What a piece takes besides its characters [bytes]."""
RULE = "bpe-2"


@dataclass(frozen=True, kw_only=True)
class Bpe:
    """Merges of bytes, learnt anew from the training documents and cached by their content.

    `vocab_size` counts the 256 bytes, end-of-text and the merges. The same documents give the same tokenizer. Of more
    than 128 Mi characters it learns from a sample, between half as much and that, taken from all of them evenly.
    """

    usage: ClassVar[str] = "bpe:VOCAB_SIZE"

    vocab_size: int

    def __post_init__(self):
        if self.vocab_size < BYTES + 2:
            raise UserError(
                f"{self.spec} is too small: the 256 bytes and end-of-text take {BYTES + 1} ids; "
                f"write bpe:{BYTES + 2} or more, such as bpe:2048 (or `bytes`, which has no merges)"
            )

    @property
    def spec(self) -> str:
        """How this recipe is written."""
        return f"bpe:{self.vocab_size}"

    def build(self, documents: Callable[[], Iterator[str]], identity: str) -> FastTokenizer:
        """The tokenizer, learnt or from the cache.

        Raises:
            UserError: the documents are too few for a vocabulary of this size.
        """
        key = content_hash(RULE, str(self.vocab_size), identity, tokenizers.__version__)

        def publish(folder: Path) -> None:
            tokenizer = self._learn(documents())
            with aside(folder) as temporary:
                tokenizer.save(temporary)

        return cached("tokenizers", key, publish, self._load)

    def _load(self, folder: Path) -> FastTokenizer:
        tokenizer = read_tokenizer(folder)
        if tokenizer.spec != self.spec:
            raise UserError(f"{folder} does not hold the tokenizer {self.spec}")
        return tokenizer

    def _learn(self, documents: Iterator[str]) -> FastTokenizer:
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=2,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(_sample(track(documents, f"reading for {self.spec}")), trainer)
        reached = tokenizer.get_vocab_size()
        if reached < self.vocab_size:
            advice = f"write bpe:{reached}" if reached >= BYTES + 2 else "write `bytes`"
            raise UserError(
                f"{self.spec}: the training text repeats itself too little for more than "
                f"{reached} tokens; {advice} or give more text"
            )
        return FastTokenizer(tokenizer.to_str(), spec=self.spec)


def _sample(documents: Iterable[str]) -> list[str]:
    """All of a small corpus; of a large one the pieces whose hash is below a threshold, halved as often as needed."""
    kept, size, threshold, number = [], 0, 1 << 64, 0
    for document in documents:
        for start in range(0, len(document), PIECE_CHARACTERS):
            piece = document[start : start + PIECE_CHARACTERS]
            number += 1  # so that pieces alike do not stay or go together
            value = int.from_bytes(hashlib.blake2b(f"{number} {piece}".encode(), digest_size=8).digest(), "big")
            if value >= threshold:
                continue
            kept.append((value, piece))
            size += len(piece) + OVERHEAD
            while size > LEARNT_CHARACTERS and threshold > 1:
                threshold //= 2
                kept = [each for each in kept if each[0] < threshold]
                size = sum(len(piece) + OVERHEAD for _, piece in kept)
    return [piece for _, piece in kept]
