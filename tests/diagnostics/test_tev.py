"""Token embedding variability against the definition in float64."""

import math

import pytest
import torch

from spikeless.diagnostics import Snapshot
from spikeless.diagnostics.tev import tev
from spikeless.optim.adamw import AdamW
from spikeless.training.state import TrainState

E = torch.randn(57, 24, generator=torch.Generator().manual_seed(1)) * 0.02 + 0.01
P = torch.randn(9, 24, generator=torch.Generator().manual_seed(2)) * 0.05 + 0.3
WEIGHT = torch.randn(24, generator=torch.Generator().manual_seed(3))


def layer_norm(rows):
    return torch.nn.functional.layer_norm(rows, rows.shape[-1:], WEIGHT.to(rows.dtype))


def mean_and_std(values):
    return values.mean().item(), values.std(correction=0).item()


def close(readings, mean, std, expected):
    assert (readings[mean].item(), readings[std].item()) == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(
    "transform", [1.0, 4.9, -2.0, layer_norm, lambda rows: rows * 4.9], ids=["1", "4.9", "-2", "norm", "function"]
)
def test_every_reading_is_that_of_the_definition(transform):
    readings = tev(Snapshot(embedding=E, positions=P, transform=transform, at_start={"tev/mean": 0.5}))
    rows, positions = E.double(), P.double()
    raw = rows.std(1, correction=0)
    effective = transform(rows) if callable(transform) else transform * rows
    together = torch.stack([(effective + p).var(1, correction=0) for p in positions]).mean(0).sqrt()
    close(readings, "tev/mean", "tev/std", mean_and_std(raw))
    close(readings, "tev/effective_mean", "tev/effective_std", mean_and_std(effective.std(1, correction=0)))
    close(
        readings,
        "tev/effective_with_positions_mean",
        "tev/effective_with_positions_std",
        mean_and_std(together),
    )
    assert readings["tev/relative"].item() == pytest.approx(raw.mean().item() / 0.5, rel=1e-5)


def test_a_number_and_the_function_that_multiplies_by_it_agree():
    number = tev(Snapshot(embedding=E, positions=P, transform=3.0))
    function = tev(Snapshot(embedding=E, positions=P, transform=lambda rows: 3.0 * rows))
    assert number.keys() == function.keys()
    for key in number:
        torch.testing.assert_close(number[key], function[key])


def test_without_positions_there_is_no_reading_with_them():
    readings = tev(Snapshot(embedding=E))
    assert not [key for key in readings if "with_positions" in key]


def test_before_the_first_step_the_relative_reading_is_one():
    assert tev(Snapshot(embedding=E))["tev/relative"] == 1.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_measured_in_fp32(dtype):
    readings = tev(Snapshot(embedding=E.to(dtype)))
    close(readings, "tev/mean", "tev/std", mean_and_std(E.to(dtype).double().std(1, correction=0)))


# --- of our own models ---


def readings_of(run, build):
    model = build(run)
    state = TrainState(model, AdamW().build(model.named_parameters()), torch.device("cpu"))
    return tev(state.snapshot(8)), model


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("technique", [None, "scaled_embed", "embed_norm", "embed_detach", "embed_std_one"])
def test_effective_is_of_what_enters_the_residual_stream(family, technique, tiny_run, build):
    """Asked of the model itself: every token at every position, through its first lines."""
    readings, model = readings_of(tiny_run(family, *([technique] if technique else [])), build)
    rows = model.embedding(torch.arange(model.config.vocab_size)[None])[0].detach().double()
    close(readings, "tev/effective_mean", "tev/effective_std", mean_and_std(rows.std(1, correction=0)))
    vectors = model.positions.vectors(torch.arange(8))
    assert ("tev/effective_with_positions_mean" in readings) == (vectors is not None)
    if vectors is not None:
        together = (rows[:, None] + vectors.detach().double()).var(2, correction=0).mean(1).sqrt()
        close(
            readings,
            "tev/effective_with_positions_mean",
            "tev/effective_with_positions_std",
            mean_and_std(together),
        )


def test_what_the_papers_say_of_the_readings(tiny_run, build):
    """Scaled Embed lifts small init to sqrt(2/5); Embed LN to one."""
    sizes = {"width": 128, "num_heads": 4, "vocab_size": 2000}
    vanilla, _ = readings_of(tiny_run("gpt2", "small_init", **sizes), build)
    scaled, _ = readings_of(tiny_run("gpt2", "small_init", "scaled_embed", **sizes), build)
    normed, _ = readings_of(tiny_run("gpt2", "small_init", "embed_norm", **sizes), build)
    assert vanilla["tev/mean"].item() == pytest.approx(math.sqrt(2 / (5 * 128)), rel=0.02)
    assert scaled["tev/mean"] == vanilla["tev/mean"]
    assert scaled["tev/effective_mean"].item() == pytest.approx(math.sqrt(2 / 5), rel=0.02)
    assert normed["tev/effective_mean"].item() == pytest.approx(1, rel=1e-5)
