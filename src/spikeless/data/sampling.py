"""Which tokens a step trains on: a pure function of (seed, step, position in the batch).

Nothing is shuffled in memory and no cursor is kept: the order of an epoch is a permutation that is computed
where it is needed, so any number of ranks and micro-batches see the same samples in the same order, and a
resumed run needs the step alone.
"""

import hashlib
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from spikeless.data.mixture import Mixture
from spikeless.data.shards import Tokens
from spikeless.data.tokenizers import Tokenizer
from spikeless.errors import UserError
from spikeless.words import counted

__all__ = ["Sampler", "permute", "validation_batches", "validation_bytes_per_token"]

Batch = tuple[Tensor, Tensor]
"""Inputs and targets, int64 [windows, T]."""

ROUNDS = 8
DECODED_TOKENS = 1 << 20
"""At once, to count their bytes; a character that is cut in two counts as two."""


class Sampler:
    """Training batches from fixed windows of `sequence_length` + 1 tokens; window i begins at token i·T.

    Sample g = step · batch_size + position is window permutation(g mod n) of epoch g // n, where n windows
    make an epoch. In a mixture it is that of the source whose turn it is, g being the turns that this source had: a
    small source begins its next epoch while a large one is still in its first.

    Raises:
        UserError: the tokens of a source do not fill one window.
    """

    def __init__(self, tokens: Tokens | Mixture, sequence_length: int, seed: int):
        self._mixture, self._sequence_length, self._seed = _as_mixture(tokens), sequence_length, seed
        self._sizes = np.array([_num_windows(part, sequence_length, "training") for part in self._mixture.parts])
        self.num_windows = int(self._sizes.sum())

    def batch(self, step: int, batch_size: int, start: int = 0, count: int | None = None) -> Batch:
        """Inputs and targets, int64 [count, T], of positions `start` … `start + count - 1` of a step's batch.

        Args:
            step: counted from 0.
            batch_size: of the whole step, over all ranks and micro-batches.
            start: the first position wanted.
            count: how many positions; to the end of the batch by default.
        """
        count = batch_size - start if count is None else count
        assert step >= 0 and start >= 0 and count >= 0 and start + count <= batch_size
        sources, windows = self.windows(step, batch_size)
        wanted = slice(start, start + count)
        return _read_windows(self._mixture, sources[wanted], windows[wanted], self._sequence_length)

    def windows(self, step: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """The sources of a step's batch and the indices of their windows, int64 [batch_size] each."""
        samples = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
        sources, turns = self._mixture.turns(samples)
        epochs, places = np.divmod(turns, self._sizes[sources])
        out = np.empty_like(samples)
        for source, epoch in {*zip(sources.tolist(), epochs.tolist(), strict=True)}:
            here = (sources == source) & (epochs == epoch)
            key = f"{self._seed} {epoch}" + (f" {source}" if source else "")
            out[here] = permute(places[here], int(self._sizes[source]), key)
        return sources, out

    def epoch(self, step: int, batch_size: int) -> float:
        """How often the training tokens have been seen before a step [epochs]; of a mixture, the source seen most."""
        shares = np.array([float(share) for share in self._mixture.shares])
        return float((step * batch_size * shares / self._sizes).max())


def validation_batches(
    tokens: Tokens | Mixture, sequence_length: int, batch_size: int, max_tokens: int | None = None
) -> Iterator[Batch]:
    """The first windows in order, each once: inputs and targets, int64 [at most batch_size, T].

    A mixture's sources take turns, until the first of them has no window left.

    Args:
        tokens: the validation tokens.
        sequence_length: T [tokens].
        batch_size: windows in a batch; the last batch may have fewer.
        max_tokens: how many targets at most, in whole windows [tokens]; all there are by default.

    Raises:
        UserError: the tokens, or `max_tokens`, do not fill one window.
    """
    mixture, sources, turns = _validation_windows(tokens, sequence_length, max_tokens)
    batches = (slice(start, min(start + batch_size, len(turns))) for start in range(0, len(turns), batch_size))
    return (_read_windows(mixture, sources[each], turns[each], sequence_length) for each in batches)


def validation_bytes_per_token(
    tokens: Tokens | Mixture, tokenizer: Tokenizer, sequence_length: int, max_tokens: int | None = None
) -> float | None:
    """Bytes of text over tokens, of the targets of `validation_batches`; None if their text is empty.

    The text is what the targets decode to, in UTF-8; end-of-text and what documents begin with have no bytes.
    """
    mixture, sources, turns = _validation_windows(tokens, sequence_length, max_tokens)
    size, between = 0, (tokenizer.end_of_text, *tokenizer.reading.beginning)
    for source, part in enumerate(mixture.parts):
        end = 1 + int(np.count_nonzero(sources == source)) * sequence_length  # its first windows, which lie in a row
        for start in range(1, end, DECODED_TOKENS):
            ids = part.read(start, min(DECODED_TOKENS, end - start))
            texts = np.split(ids, np.flatnonzero(ids == tokenizer.end_of_text) + 1)
            size += sum(len(tokenizer.decode(text[~np.isin(text, between)]).encode()) for text in texts)
    return size / (len(turns) * sequence_length) or None


def _validation_windows(
    tokens: Tokens | Mixture, sequence_length: int, max_tokens: int | None
) -> tuple[Mixture, np.ndarray, np.ndarray]:
    """The sources of the windows that are scored and their indices in them, int64 [windows] each."""
    mixture = _as_mixture(tokens)
    sizes = np.array([_num_windows(part, sequence_length, "validation") for part in mixture.parts])
    if max_tokens is not None and max_tokens < sequence_length:
        raise UserError(
            f"{max_tokens} validation tokens were asked for, fewer than one window of sequence_length = "
            f"{sequence_length}; ask for at least that many"
        )
    count = int(sizes.sum()) if max_tokens is None else min(int(sizes.sum()), max_tokens // sequence_length)
    sources, turns = mixture.turns(np.arange(count))
    count = int(np.argmax(over)) if (over := turns >= sizes[sources]).any() else count
    return mixture, sources[:count], turns[:count]


def _as_mixture(tokens: Tokens | Mixture) -> Mixture:
    return tokens if isinstance(tokens, Mixture) else Mixture([tokens], [Fraction(1)])


def permute(places: np.ndarray, size: int, key: str) -> np.ndarray:
    """Where a pseudo-random permutation of 0 … size - 1 sends `places`, int64.

    A balanced Feistel network over the smallest even number of bits that holds `size`, its round keys a hash
    of `key`; a value that falls outside is sent round again until it falls inside (cycle walking), which
    keeps it a bijection. A value takes fewer than four rounds of this on average.

    Reference: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, sections 3 and 4.
    """
    half = max((int(size - 1).bit_length() + 1) // 2, 1)
    keys = np.frombuffer(hashlib.blake2b(key.encode(), digest_size=8 * ROUNDS).digest(), dtype="<u8")
    values = _feistel(places.astype(np.uint64), half, keys)
    while (outside := values >= size).any():
        values[outside] = _feistel(values[outside], half, keys)
    return values.astype(np.int64)


def _feistel(values: np.ndarray, half: int, keys: np.ndarray) -> np.ndarray:
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return left << shift | right


def _mix(values: np.ndarray) -> np.ndarray:
    """A 64-bit finaliser: every bit of the result depends on every bit of the value (SplitMix64's)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _read_windows(mixture: Mixture, sources: np.ndarray, windows: np.ndarray, sequence_length: int) -> Batch:
    rows = np.empty((len(windows), sequence_length + 1), dtype=np.int64)
    for row, source, window in zip(rows, sources, windows, strict=True):
        row[:] = mixture.parts[source].read(int(window) * sequence_length, sequence_length + 1)
    both = torch.from_numpy(rows)
    return both[:, :-1].contiguous(), both[:, 1:].contiguous()


def _num_windows(tokens: Tokens, sequence_length: int, what: str) -> int:
    if sequence_length < 1:
        raise UserError(f"sequence_length is {sequence_length}; it must be at least 1")
    count = (len(tokens) - 1) // sequence_length
    if count < 1:
        remedy = f"set sequence_length to at most {len(tokens) - 1} or " if len(tokens) > 1 else ""
        raise UserError(
            f"there {'is' if len(tokens) == 1 else 'are'} {counted(len(tokens), f'{what} token')}, "
            "fewer than one window of sequence_length + 1 = "
            f"{sequence_length + 1} takes; {remedy}give more text"
        )
    return count
