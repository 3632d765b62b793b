from dataclasses import replace

import pytest

from spikeless.preflight.checks.padded_vocabulary import padded_vocabulary
from spikeless.preflight.measurements import TevReading


@pytest.mark.parametrize(
    ("vocab", "rows", "expected"),
    [
        (50257, 0, ("pass", "rows")),
        (97, 1, ("pass", "rows")),
        (50304, 47, ("pass", "rows")),
        (128, 31, ("pass", "rows")),
        (151936, 1000, ("pass", "rows")),
        (50257, 1000, ("warn", "many-rows")),
        (50304, 5000, ("warn", "many-rows")),
        (97, 10, ("warn", "many-rows")),
        (50304, 40000, ("fail", "many-rows")),
        (128, 100, ("fail", "many-rows")),
    ],
)
def test_rows_of_one_value(weights, judge, vocab, rows, expected):
    measured = weights(tev=TevReading(name="embedding.weight", mean=0.02, std=0.001, padded_rows=rows))
    measured = replace(measured, model=replace(measured.model, vocab_size=vocab))
    assert judge(padded_vocabulary, measured) == {expected}


def test_nothing_measured_nothing_found(weights):
    assert padded_vocabulary(weights()) == []
