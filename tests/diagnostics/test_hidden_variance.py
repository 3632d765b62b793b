"""The variance of the residual stream against a forward pass with hooks, in float64."""

import pytest
import torch

from spikeless.diagnostics import Snapshot
from spikeless.diagnostics.hidden_variance import hidden_variance
from spikeless.optim.adamw import AdamW
from spikeless.training.state import TrainState

NOTHING = torch.zeros(1, 1)


def variance(stream):
    """Over the width, mean over tokens, by the definition."""
    rows = stream.detach().double().flatten(0, -2)
    return ((rows - rows.mean(-1, keepdim=True)) ** 2).mean(-1).mean().item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_that_of_the_definition(dtype):
    streams = [torch.randn(2, 5, 16).mul(scale).add(3).to(dtype) for scale in (0.5, 1.0, 4.0)]
    readings = hidden_variance(Snapshot(embedding=NOTHING, streams=lambda: iter(streams)))
    expected = [variance(each) for each in streams]
    assert list(readings) == [*(f"hidden_variance/00{depth}" for depth in range(3)), "hidden_variance/growth"]
    for depth, value in enumerate(expected):
        assert readings[f"hidden_variance/00{depth}"].item() == pytest.approx(value, rel=1e-5)
    assert readings["hidden_variance/growth"].item() == pytest.approx(expected[-1] / expected[0], rel=1e-5)


def test_without_a_residual_stream_there_are_no_readings():
    assert hidden_variance(Snapshot(embedding=NOTHING)) == {}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("technique", [None, "scaled_embed", "embed_norm", "mlra"])
def test_of_our_models_there_is_one_before_each_block_and_one_at_the_end(family, technique, tiny_run, build):
    model = build(tiny_run(family, *filter(None, [technique]), num_layers=3))
    state = TrainState(model, AdamW().build(model.named_parameters()), torch.device("cpu"))
    tokens = torch.randint(97, (2, 8))
    readings = hidden_variance(state.snapshot(8, (), lambda: tokens))
    assert len(readings) == 3 + 2
    rows, vectors = model.embedding(tokens), model.positions.vectors(torch.arange(8))
    entered = variance(rows if vectors is None else rows + vectors)
    assert readings["hidden_variance/000"].item() == pytest.approx(entered, rel=1e-5)
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, out: seen.append(variance(out)))
    model(tokens)
    assert [readings[f"hidden_variance/00{depth}"].item() for depth in (1, 2, 3)] == pytest.approx(seen, rel=1e-5)
    assert not any(each.requires_grad for each in readings.values())
