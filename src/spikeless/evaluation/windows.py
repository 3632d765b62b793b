"""Windows of tokens, and scoring many of them: like lengths together, each counted by itself."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from spikeless.errors import UnhealthyRun, UserError
from spikeless.evaluation.scorer import IGNORED, Scorer
from spikeless.words import counted

__all__ = ["Score", "Window", "rolling_windows", "score_windows"]

SORTED_BATCHES = 64
"""So many batches are sorted by length at a time: no more than these are held."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Tokens that a model sees at once.

    Attributes:
        tokens: context and targets.
        scored: how many of the last are targets; each is predicted from all before it.
    """

    tokens: Sequence[int]
    scored: int

    def __post_init__(self) -> None:
        assert 1 <= self.scored < len(self.tokens)


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a model says of one window's targets.

    Attributes:
        log_probability: of all of them together, in float64 [nats].
        greedy: each is the likeliest token at its place.
    """

    log_probability: float
    greedy: bool


def rolling_windows(
    tokens: Sequence[int], prefix: Sequence[int], sequence_length: int, stride: int
) -> Iterator[Window]:
    """Windows of a document in which every token is a target exactly once.

    The first predicts the tokens after `prefix`, as many as make `sequence_length` inputs. Each later one
    predicts the next `stride` tokens, or those that are left, and takes in as many before them as make as many. With
    `stride` = `sequence_length` these are the windows of the rolling log-likelihood of EleutherAI's lm-eval.
    """
    extended, before = [*prefix, *tokens], len(prefix)
    end = min(max(sequence_length + 1, before + 1), len(extended))
    if tokens:
        yield Window(tokens=extended[max(0, end - sequence_length - 1) : end], scored=end - before)
    while end < len(extended):
        begin, end = end, min(end + stride, len(extended))
        yield Window(tokens=extended[max(0, end - sequence_length - 1) : end], scored=end - begin)


def score_windows(scorer: Scorer, windows: Iterable[Window], batch_size: int) -> Iterator[Score]:
    """Score windows, in their order; the batch size changes nothing but speed and memory.

    Raises:
        UserError: a batch does not fit into the device's memory, or the batch size is not positive.
        UnhealthyRun: a probability is zero or not a number: the model is broken.
    """
    if batch_size < 1:
        raise UserError(f"batch size {batch_size} is out of range; use a whole number from 1")
    windows = iter(windows)
    while block := list(itertools.islice(windows, batch_size * SORTED_BATCHES)):
        order = sorted(range(len(block)), key=lambda index: -len(block[index].tokens))
        scores: dict[int, Score] = {}
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            scores.update(zip(chosen, _score_batch(scorer, [block[index] for index in chosen]), strict=True))
        yield from (scores[index] for index in range(len(block)))


def _score_batch(scorer: Scorer, batch: Sequence[Window]) -> Iterator[Score]:
    longest = max(len(window.tokens) for window in batch) - 1
    inputs = torch.zeros((len(batch), longest), dtype=torch.long)
    targets = torch.full_like(inputs, IGNORED)
    for row, window in enumerate(batch):
        tokens = torch.tensor(window.tokens)
        inputs[row, : len(tokens) - 1] = tokens[:-1]
        targets[row, len(tokens) - 1 - window.scored : len(tokens) - 1] = tokens[-window.scored :]
    try:
        scores = scorer(inputs, targets)
    except torch.OutOfMemoryError:
        raise UserError(
            f"{counted(len(batch), 'window')} of {counted(longest, 'token')} do not fit into the device's memory; "
            "lower the batch size"
        ) from None
    sums, greedy = scores.log_probabilities.double().sum(1), scores.greedy.all(1)
    for total, is_greedy in zip(sums.tolist(), greedy.tolist(), strict=True):
        if not abs(total) < float("inf"):
            raise UnhealthyRun(
                f"the model gives a token the log-probability {total}; its weights are broken, "
                "or too large for this precision"
            )
        yield Score(log_probability=total, greedy=is_greedy)
