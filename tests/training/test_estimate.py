"""What a run will cost, against what it does cost."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from spikeless.config import find, names_in, replace_at
from spikeless.data import parse_tokenizer
from spikeless.losses.cross_entropy import CrossEntropy
from spikeless.training.build import build_model
from spikeless.training.checkpoints import Checkpoints
from spikeless.training.estimate import estimate, flops_per_token
from spikeless.training.loop import train

CPU = torch.device("cpu")


@pytest.mark.parametrize("technique", [None, "mlra", "embed_std_one"])
@pytest.mark.parametrize(("family", "sizes"), [("gpt2", {}), ("llama", {"num_kv_heads": 2})])
@pytest.mark.parametrize("length", [8, 256])
def test_flops_are_those_that_torch_counts(family, sizes, technique, length, tiny_run, build):
    """Attention is causal: half of what torch counts for it, which computes the whole matrix and masks."""
    run = tiny_run(family, *([technique] if technique else []), width=64, context_length=256, **sizes)
    model = build(run)
    tokens = torch.randint(97, (2, length))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
    masked_half = 6 * run.model.num_layers * length * run.model.width
    counted = counter.get_total_flops() / tokens.numel() - masked_half
    assert flops_per_token(model, length) == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize("name", names_in("recipes"))
def test_an_estimate_is_of_the_run(name, monkeypatch):
    monkeypatch.setattr("spikeless.training.estimate._rate", lambda device: (1e3, "assumed"))
    run = find("recipes", name)()
    run = replace_at(run, {"model.vocab_size": parse_tokenizer(run.data.tokenizer).vocab_size})
    cost = estimate(run, CPU)
    assert cost.parameters == sum(p.numel() for p in build_model(run, "meta").parameters())
    assert cost.tokens == run.steps * run.data.batch_size * run.data.sequence_length == run.steps * cost.tokens_per_step
    assert cost.checkpoint == 12 * cost.parameters
    assert cost.memory > 16 * cost.parameters
    assert cost.flops_per_step > 6 * cost.parameters * cost.tokens_per_step * 0.5
    assert cost.seconds_per_step == cost.flops_per_step / 1e3


def test_a_small_models_step_is_measured_and_a_large_ones_rate(tiny_run):
    small = estimate(tiny_run(), CPU)
    assert small.source == "a forward and backward pass measured here"
    assert 1e-4 < small.seconds_per_step < 10
    large = estimate(find("recipes", "gpt2_124m")(), CPU)
    assert "GFLOP/s measured" in large.source
    assert 1e8 < large.flops_per_step / large.seconds_per_step < 1e14


def test_the_disk_is_what_a_checkpoint_takes(tmp_path, quick_run):
    run = replace_at(quick_run, {"steps": 1, "model.width": 64, "model.vocab_size": 257})
    train(run, tmp_path)
    taken = sum(file.stat().st_size for file in Checkpoints(tmp_path).path(1).iterdir())
    assert estimate(run, CPU).checkpoint == pytest.approx(taken, rel=0.1)


def test_micro_batches_save_activations_and_no_arithmetic(quick_run):
    run = replace_at(quick_run, {"model.vocab_size": 257})
    whole, parts = estimate(run, CPU), estimate(replace_at(run, {"data.micro_batches": 4}), CPU)
    assert parts.memory < whole.memory
    assert parts.flops_per_step == whole.flops_per_step


def test_a_chunk_of_logits_is_counted_once(quick_run):
    """The loss never holds the logits of all tokens: memory does not grow with tokens times vocabulary."""
    run = replace_at(quick_run, {"model.vocab_size": 100_000, "loss": CrossEntropy(chunk_tokens=8)})
    small = estimate(run, CPU).memory - 16 * estimate(run, CPU).parameters
    assert small < 4 * 100_000 * run.data.batch_size * run.data.sequence_length
