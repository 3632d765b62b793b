import pytest

from spikeless.preflight.checks.embedding_std import embedding_std
from spikeless.preflight.measurements import LogitsReading

ONE = {"embedding.weight": {"std": 1.0}}
SMALL = {"embedding.weight": {"std": 0.02}}
DECAYED = ("query", "token_embedding")


def seen(std):
    return LogitsReading(std=std, max_abs=5 * std, log_sum_exp=11, loss=11, ln_vocab=10.8)


@pytest.mark.parametrize(
    ("changes", "tied", "decayed", "logits", "expected"),
    [
        (SMALL, True, DECAYED, None, {("pass", "std")}),
        (ONE, False, (), None, {("pass", "std")}),
        (ONE, False, None, None, {("pass", "std")}),
        (ONE, False, DECAYED, None, {("warn", "decayed")}),
        (ONE, True, (), None, {("fail", "tied")}),
        (ONE, True, None, None, {("fail", "tied")}),
        (ONE, True, DECAYED, None, {("fail", "tied"), ("warn", "decayed")}),
        (ONE, True, (), seen(27.0), {("fail", "tied")}),
        (ONE, True, (), seen(2.0), {("warn", "tied")}),
        (ONE, True, (), seen(0.5), {("pass", "std")}),
    ],
)
def test_an_embedding_of_std_one(weights, judge, changes, tied, decayed, logits, expected):
    measured = weights(changes=changes, tied=tied, decayed_roles=decayed, logits=logits)
    assert judge(embedding_std, measured) == expected


def test_unknown_decay_is_remarked(weights):
    (found,) = embedding_std(weights(changes=ONE, tied=False))
    assert "weight decay" in found.message


def test_trained_embeddings_are_not_judged(weights):
    assert embedding_std(weights(changes=ONE, state="trained")) == []
