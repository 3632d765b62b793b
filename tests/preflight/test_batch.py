"""The batches of an audit and of its range test."""

from dataclasses import replace

import pytest
import torch

from spikeless.config import replace_at
from spikeless.data import parse_tokenizer
from spikeless.preflight.batch import read_batches
from spikeless.preflight.target import target_of_run


@pytest.fixture(params=["run", "tokenizer", "random"])
def read(request, tiny_run, tmp_path):
    """Reads batches of 2 sequences of 8 tokens: as a run's, as a pretrained model's, random ones."""
    text = "".join(f"{number} green bottles, " for number in range(20))  # more than one batch, less than forty
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(text)
    run = replace_at(
        tiny_run("gpt2"), {"data.tokenizer": "bytes", "model.vocab_size": 257, "data.validation_fraction": 0.5}
    )
    target = target_of_run("a run", run, False)
    if request.param == "tokenizer":
        target = replace(target, tokenizer=parse_tokenizer("bytes").build(lambda: iter(()), ""))
    data = "random" if request.param == "random" else f"text:{tmp_path}/a.txt,validation={tmp_path}/b.txt"
    return lambda count: read_batches(target, 257, count, data=data, sequences=2, tokens=8)[0]


def test_the_first_batch_is_that_of_an_audit_alone_and_the_others_are_others(read):
    ids = read(4)
    assert ids.shape == (4, 2, 9)
    assert torch.equal(ids[:1], read(1))
    assert len({tuple(each.flatten().tolist()) for each in ids}) == 4


def test_a_short_text_is_read_again(read):
    ids = read(40)
    assert ids.shape == (40, 2, 9)
    assert int(ids.max()) < 257
