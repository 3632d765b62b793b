import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch

from spikeless.data import Mixture, Sampler, Tokens, parse_tokenizer, validation_batches, validation_bytes_per_token
from spikeless.data.sampling import permute
from spikeless.errors import UserError

T = 8


def tokens(count):
    return Tokens([np.arange(count, dtype=np.uint16)])


def sampler(count=1000, seed=0, sequence_length=T):
    return Sampler(tokens(count), sequence_length, seed)


@pytest.mark.parametrize("size", [*range(1, 70), 97, 127, 128, 129, 255, 256, 257, 1009, 4096, 10007])
def test_the_permutation_is_a_bijection(size):
    for key in ("0 0", "0 1", "7 0"):
        assert sorted(permute(np.arange(size), size, key)) == list(range(size))


def test_the_permutation_of_a_large_range_is_computed_where_it_is_needed():
    size = 10**15 + 37
    places = np.arange(size - 10_000, size)
    values = permute(places, size, "0 0")
    assert len(set(values.tolist())) == 10_000
    assert values.min() >= 0 and values.max() < size
    assert abs(values.mean() / size - 0.5) < 0.02
    assert (permute(places[5:9], size, "0 0") == values[5:9]).all()


def test_all_orders_come_about_equally_often():
    for size in (2, 3, 4):
        orders = [tuple(permute(np.arange(size), size, f"0 {epoch}")) for epoch in range(2400)]
        counts = [orders.count(order) for order in itertools.permutations(range(size))]
        assert min(counts) > 0.6 * 2400 / len(counts), counts


def test_neighbours_are_scattered():
    values = permute(np.arange(10_000), 10_000, "3 5").astype(float)
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.05
    assert abs(np.corrcoef(values, np.arange(10_000))[0, 1]) < 0.05


def test_targets_are_the_inputs_shifted_by_one():
    inputs, targets = sampler().batch(3, 5)
    assert inputs.shape == targets.shape == (5, T)
    assert inputs.dtype == targets.dtype == torch.int64
    assert (targets == inputs + 1).all()  # the tokens count up
    assert (inputs[:, 0] % T == 0).all()


def test_an_epoch_shows_every_window_once_and_the_next_in_another_order():
    data = sampler(count=T * 25 + 1)
    assert data.num_windows == 25
    first, second = ([data.batch(step, 5)[0][:, 0] for step in steps] for steps in (range(5), range(5, 10)))
    for epoch in (first, second):
        assert sorted(torch.cat(epoch).tolist()) == list(range(0, T * 25, T))
    assert torch.cat(first).tolist() != torch.cat(second).tolist()
    assert torch.cat(first).tolist() != sorted(torch.cat(first).tolist())
    assert (data.epoch(0, 5), data.epoch(5, 5), data.epoch(7, 5)) == (0, 1, 1.4)


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 6, 12])
def test_any_number_of_ranks_and_micro_batches_see_the_same_samples(parts):
    data, size = sampler(), 12
    share = size // parts
    for step in (0, 9, 10, 11, 1000):  # an epoch of 124 windows ends in the middle of step 10
        whole = data.batch(step, size)
        pieces = [data.batch(step, size, start=part * share, count=share) for part in range(parts)]
        for each, piece in zip(whole, zip(*pieces, strict=True), strict=True):
            assert torch.equal(each, torch.cat(piece))


def test_the_stream_of_samples_does_not_depend_on_the_batch_size():
    data = sampler()
    streams = [torch.cat([data.batch(step, size)[0] for step in range(240 // size)]) for size in (1, 5, 24, 80, 240)]
    assert all(torch.equal(streams[0], stream) for stream in streams[1:])


def test_samples_depend_on_seed_and_step_and_on_nothing_before():
    one, two = sampler(), sampler()
    for step in (0, 1, 2):
        one.batch(step, 7)
    assert torch.equal(one.batch(500, 7)[0], two.batch(500, 7)[0])
    assert not torch.equal(one.batch(500, 7)[0], sampler(seed=1).batch(500, 7)[0])
    assert not torch.equal(one.batch(500, 7)[0], one.batch(501, 7)[0])


def test_samples_are_pinned():
    """A change of the sampling would silently change every resumed run."""
    assert sampler().windows(10, 12)[1].tolist() == [55, 59, 85, 71, 55, 123, 75, 19, 59, 71, 41, 15]


def test_a_batch_may_be_larger_than_an_epoch():
    inputs, _ = sampler(count=2 * T + 1).batch(0, 7)
    assert sorted(inputs[:2, 0].tolist()) == sorted(inputs[2:4, 0].tolist()) == [0, T]


def test_validation_windows_come_in_order_each_once():
    batches = list(validation_batches(tokens(T * 10 + 1), T, batch_size=4))
    assert [len(inputs) for inputs, _ in batches] == [4, 4, 2]
    assert torch.cat([inputs for inputs, _ in batches]).flatten().tolist() == list(range(T * 10))
    assert torch.cat([targets for _, targets in batches]).flatten().tolist() == list(range(1, T * 10 + 1))


@pytest.mark.parametrize(("limit", "windows"), [(T, 1), (2 * T - 1, 1), (2 * T, 2), (10**9, 10), (None, 10)])
def test_validation_keeps_to_its_limit(limit, windows):
    batches = validation_batches(tokens(T * 11), T, batch_size=3, max_tokens=limit)
    assert sum(len(inputs) for inputs, _ in batches) == windows


def test_too_few_tokens_are_refused_with_what_would_fit():
    with pytest.raises(UserError, match=r"8 training tokens, .* = 9 takes; set sequence_length to at most 7 or"):
        sampler(count=T)
    assert sampler(count=T, sequence_length=7).num_windows == 1
    with pytest.raises(UserError, match="8 validation tokens"):
        validation_batches(tokens(T), T, batch_size=1)
    with pytest.raises(UserError, match=r"there is 1 training token, .* takes; give more text"):
        sampler(count=1)
    with pytest.raises(UserError, match=r"5 validation tokens were asked for.*sequence_length = 8"):
        validation_batches(tokens(100), T, batch_size=1, max_tokens=5)
    with pytest.raises(UserError, match="sequence_length is 0"):
        sampler(sequence_length=0)


TEXTS = ["The cat sat on the mat. ", "Größe, naïve, 漢字! " * 3, "It was the best of times. " * 9]


@pytest.mark.parametrize("spec", ["bytes", "bpe:280"])
def test_bytes_per_token_are_those_of_the_text_that_is_scored(spec):
    """End-of-text is a token without bytes; what lies behind the last window does not count."""
    tokenizer = parse_tokenizer(spec).build(lambda: iter(TEXTS), "")
    ids = [each for text in TEXTS for each in (*tokenizer.encode(text), tokenizer.end_of_text)]
    windows = (len(ids) - 1) // T
    head = len(tokenizer.decode(ids[:1]).encode())
    tail = len(tokenizer.decode(ids[1 + windows * T : -1]).encode())
    size = sum(len(text.encode()) for text in TEXTS) - head - tail
    held = Tokens([np.array(ids)])
    assert validation_bytes_per_token(held, tokenizer, T) == pytest.approx(size / (windows * T), abs=1e-12)
    first = len(tokenizer.decode(ids[1 : T + 1]).encode())
    assert validation_bytes_per_token(held, tokenizer, T, T) == first / T


def test_bytes_per_token_of_a_mixture_are_those_of_the_windows_of_each_source(byte_tokenizer):
    end = byte_tokenizer.end_of_text
    text, empty = np.full(2 * T + 1, ord("a")), np.full(2 * T + 1, end)
    mixed = Mixture([Tokens([text]), Tokens([empty])], [Fraction(1, 2)] * 2)
    assert validation_bytes_per_token(mixed, byte_tokenizer, T) == 0.5
    assert validation_bytes_per_token(Tokens([empty]), byte_tokenizer, T) is None
