"""Shares of a mixture, and that they are the same wherever one looks."""

import random
from fractions import Fraction

import numpy as np
import pytest

from spikeless.data import Mixture, Sampler, Tokens, validation_batches
from spikeless.data.mixture import PERIOD, parse_mixture
from spikeless.errors import UserError

T = 4


def mixture(*weights, sizes=None):
    """Source i holds tokens of the i-th thousand."""
    sizes = sizes or [401] * len(weights)
    shares = [Fraction(weight) / sum(map(Fraction, weights)) for weight in weights]
    parts = [Tokens([np.arange(size) + 100_000 * i]) for i, size in enumerate(sizes)]
    return Mixture(parts, shares)


@pytest.mark.parametrize("seed", range(30))
def test_every_prefix_has_its_shares_to_within_one(seed):
    random.seed(seed)
    weights = [random.randint(1, 60) for _ in range(random.randint(1, 6))]
    mixed = mixture(*weights)
    samples = np.arange(3 * sum(weights) + 5)
    sources, turns = mixed.turns(samples)
    for index, share in enumerate(mixed.shares):
        taken = np.cumsum(sources == index)
        assert np.abs(taken - (samples + 1) * float(share)).max() < 1 + 1e-9
        assert (turns[sources == index] == np.arange(taken[-1])).all()


def test_turns_do_not_depend_on_where_one_looks():
    mixed, samples = mixture("0.7", "0.2", "0.1"), np.arange(1000)
    whole = mixed.turns(samples)
    for start in (0, 1, 499, 990):
        assert all(
            (a[start : start + 10] == b).all()
            for a, b in zip(whole, mixed.turns(samples[start : start + 10]), strict=True)
        )


def test_shares_that_need_a_long_period_are_rounded():
    sources, _ = mixture("0.123456789", "0.876543211").turns(np.arange(PERIOD))
    assert np.bincount(sources).tolist() == [8091, PERIOD - 8091]
    sources, _ = mixture("0.000000001", "1").turns(np.arange(PERIOD))
    assert np.bincount(sources).tolist() == [1, PERIOD - 1]


def test_a_small_source_begins_anew_while_a_large_one_is_still_in_its_first_epoch():
    sampler = Sampler(mixture(1, 1, sizes=[10 * T + 1, 100 * T + 1]), T, seed=0)
    inputs = torch_cat(sampler.batch(step, 8)[0] for step in range(25))
    small, large = inputs[inputs[:, 0] < 100_000], inputs[inputs[:, 0] >= 100_000]
    assert len(small) == len(large) == 100
    assert np.unique(small[:, 0], return_counts=True)[1].tolist() == [10] * 10
    assert len(np.unique(large[:, 0])) == 100
    assert sampler.epoch(25, 8) == 10


def test_the_parts_of_a_step_are_the_step(step=7):
    sampler = Sampler(mixture("0.6", "0.4"), T, seed=3)
    whole = sampler.batch(step, 8)[0]
    parts = torch_cat(sampler.batch(step, 8, start, 2)[0] for start in range(0, 8, 2))
    assert (whole.numpy() == parts).all()


def test_a_mixture_of_one_is_that_source():
    tokens = Tokens([np.arange(1000)])
    one, alone = Sampler(Mixture([tokens], [Fraction(1)]), T, seed=5), Sampler(tokens, T, seed=5)
    assert all((one.batch(step, 6)[0] == alone.batch(step, 6)[0]).all() for step in range(50))


def test_validation_takes_turns_until_a_source_is_spent():
    batches = list(validation_batches(mixture(1, 1, sizes=[5 * T + 1, 3 * T + 1]), T, 4))
    inputs = torch_cat(inputs for inputs, _ in batches)
    assert inputs[:, 0].tolist() == [0, 100_000, 4, 100_004, 8, 100_008, 12]


def torch_cat(batches):
    return np.concatenate([each.numpy() for each in batches])


def test_specs_may_hold_commas_pluses_and_stars():
    spec = "mix:0.5*text:a/*.md,validation=b+c/*.md+ .25 * pydocs:json+re+0.25*text:2+3/*"
    expected = ["text:a/*.md,validation=b+c/*.md", "pydocs:json+re", "text:2+3/*"]
    assert [each for _, each in parse_mixture(spec)] == expected
    assert [share for share, _ in parse_mixture("mix:3*bytes+1*pydocs")] == [Fraction(3, 4), Fraction(1, 4)]
    assert parse_mixture("pydocs") == ((Fraction(1), "pydocs"),)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mix:", "cannot read '' in the mixture"),
        ("mix:pydocs", "cannot read 'pydocs'.*write mix:0.7"),
        ("mix:0.5*pydocs+text:a", "no corpus|text:a"),
        ("mix:0*pydocs+1*text:a", "gives 'pydocs' no share"),
        ("mix:1*mix:1*pydocs", "holds another one"),
        ("mix:-1*pydocs", "cannot read"),
        ("mix:1e3*pydocs", "cannot read"),
    ],
)
def test_what_is_no_mixture_is_refused(spec, message):
    from spikeless.data import prepare

    with pytest.raises(UserError, match=message):
        prepare(spec, "bytes")
