"""Windows cover a document, and scores do not depend on how windows are put together."""

import random

import pytest
import torch

from spikeless.errors import UnhealthyRun, UserError
from spikeless.evaluation.scorer import Scores
from spikeless.evaluation.windows import Window, rolling_windows, score_windows

PREFIX = 99


def of_lm_eval(tokens, length):
    """lm-eval 0.4.13, `get_rolling_token_windows` with context_len=1 and `make_disjoint_window`, written anew."""
    whole = [PREFIX, *tokens]
    first = tokens[:length]
    yield [PREFIX, *first[:-1]], first
    for start in range(length, len(tokens), length):
        targets = tokens[start : start + length]
        end = start + len(targets)
        yield whole[end - length : end], targets


@pytest.mark.parametrize("count", [1, 4, 5, 6, 9, 10, 11, 23])
def test_disjoint_windows_are_those_of_lm_eval(count):
    tokens = list(range(count))
    windows = list(rolling_windows(tokens, [PREFIX], 5, 5))
    assert [(window.tokens[:-1], window.tokens[-window.scored :]) for window in windows] == list(of_lm_eval(tokens, 5))


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 5, 6, 7, 12])
def test_each_token_is_scored_once_with_the_context_promised(stride, count):
    tokens, length = list(range(count)), 5
    windows = list(rolling_windows(tokens, [PREFIX], length, stride))
    assert [token for window in windows for token in window.tokens[-window.scored :]] == tokens
    whole = [PREFIX, *tokens]
    for number, window in enumerate(windows):
        assert len(window.tokens) <= length + 1
        end = window.tokens[-1] + 2
        assert window.tokens == whole[end - len(window.tokens) : end]
        assert number == 0 or len(window.tokens) == length + 1
        assert number in (0, len(windows) - 1) or window.scored == stride


def test_a_beginning_of_several_tokens_is_no_target():
    windows = list(rolling_windows([1, 2, 3, 4, 5, 6], [90, 91], 4, 4))
    assert [(window.tokens, window.scored) for window in windows] == [([90, 91, 1, 2, 3], 3), ([2, 3, 4, 5, 6], 3)]
    assert list(rolling_windows([1], [90, 91], 1, 1)) == [Window(tokens=[91, 1], scored=1)]


def test_an_empty_document_has_no_window():
    assert list(rolling_windows([], [PREFIX], 5, 5)) == []


def many_windows(count):
    draw = random.Random(0)
    sizes = [draw.randint(2, 17) for _ in range(count)]
    return [Window(tokens=draw.choices(range(50), k=size), scored=draw.randint(1, size - 1)) for size in sizes]


def test_scores_come_in_order_and_are_those_of_each_window_alone(table_subject):
    scorer = table_subject().scorer
    windows = many_windows(300)
    for window, score in zip(windows, score_windows(scorer, windows, 3), strict=True):
        start = len(window.tokens) - window.scored
        places = range(start, len(window.tokens))
        rows = [scorer.logits(window.tokens[place - 1], place - 1).log_softmax(0) for place in places]
        wanted = sum(row[window.tokens[place]].item() for row, place in zip(rows, places, strict=True))
        assert score.log_probability == pytest.approx(wanted, rel=1e-12)
        assert score.greedy == all(int(row.argmax()) == window.tokens[p] for row, p in zip(rows, places, strict=True))


def test_like_lengths_are_computed_together_and_memory_is_bounded(table_subject):
    scorer = table_subject().scorer
    taken = 0

    def windows():
        nonlocal taken
        for window in many_windows(1000):
            taken += 1
            yield window

    stream = score_windows(scorer, windows(), 2)
    next(stream)
    assert taken == 128
    list(stream)
    padded = sum(rows * length for rows, length in scorer.calls)
    needed = sum(len(window.tokens) - 1 for window in many_windows(1000))
    assert padded < 1.02 * needed


def test_a_broken_model_is_said():
    def broken(inputs, targets):
        return Scores(torch.full(inputs.shape, float("nan")), torch.ones_like(inputs, dtype=torch.bool))

    with pytest.raises(UnhealthyRun, match="log-probability nan"):
        list(score_windows(broken, many_windows(2), 2))


def test_a_batch_too_large_for_the_device_says_what_to_lower():
    def greedy_for_memory(inputs, targets):
        raise torch.OutOfMemoryError

    with pytest.raises(UserError, match="lower the batch size"):
        list(score_windows(greedy_for_memory, many_windows(2), 2))


def test_a_batch_of_nothing_is_refused(table_subject):
    with pytest.raises(UserError, match="batch size 0 is out of range"):
        list(score_windows(table_subject().scorer, many_windows(2), 0))
