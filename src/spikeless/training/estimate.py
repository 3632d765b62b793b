"""What a run will cost, told before it starts."""

import time
from dataclasses import dataclass

import torch

from spikeless.nn.transformer import Transformer
from spikeless.roles import Role, role_of
from spikeless.run import RunConfig
from spikeless.training.build import build_model
from spikeless.training.environment import peak_flops
from spikeless.training.objective import Objective, time_pass

__all__ = ["Estimate", "estimate", "flops_per_token"]

EXPECTED_MFU = 0.4  # of a GPU's peak; what well-tuned runs reach
MEASURABLE = 1.0  # a step that arithmetic puts below this is measured [s]
SHARE_OF_GEMM = 0.6  # of the measured rate of large matrix products, for a CPU


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Counts and estimates of one run.

    Attributes:
        parameters: numbers in the model.
        tokens_per_step: [tokens].
        tokens: of the whole run [tokens].
        memory: parameters, gradients, Adam's moments and activations, fp32 [bytes].
        checkpoint: on disk, each [bytes].
        flops_per_step: forward and backward [FLOP].
        seconds_per_step: [s].
        source: where the time comes from.
    """

    parameters: int
    tokens_per_step: int
    tokens: int
    memory: int
    checkpoint: int
    flops_per_step: float
    seconds_per_step: float
    source: str


def estimate(run: RunConfig, device: torch.device) -> Estimate:
    """Count on the meta device; the time comes from a measured step where that takes a moment, else from arithmetic."""
    model = build_model(run, "meta")
    parameters = sum(p.numel() for p in model.parameters())
    tokens_per_step = run.data.batch_size * run.data.sequence_length
    flops = flops_per_token(model, run.data.sequence_length) * tokens_per_step
    rate, source = _rate(device)
    seconds = flops / rate
    if seconds < MEASURABLE:  # small models are bound by overhead, not by arithmetic: take the real time
        seconds, source = _measure(run, device), "a forward and backward pass measured here"
    return Estimate(
        parameters=parameters,
        tokens_per_step=tokens_per_step,
        tokens=tokens_per_step * run.steps,
        memory=16 * parameters + _activation_bytes(run),
        checkpoint=12 * parameters,
        flops_per_step=flops,
        seconds_per_step=seconds,
        source=source,
    )


def flops_per_token(model: Transformer, sequence_length: int) -> float:
    """Forward and backward of one token [FLOP]: 6 per matrix entry and 6 L T D for causal attention.

    Reference: Kaplan et al. 2020, with attention and the head counted (Chowdhery et al. 2022, appendix B).
    """
    lookups = (Role.TOKEN_EMBEDDING, Role.POSITION_EMBEDDING)
    entries = sum(
        p.numel() for name, p in model.named_parameters() if p.ndim > 1 and role_of(name, Role.OTHER) not in lookups
    )
    if model.config.tied:
        entries += model.output_weight.numel()
    return 6 * entries + 6 * model.config.num_layers * sequence_length * model.config.width


def _activation_bytes(run: RunConfig) -> int:
    """Activations kept for the backward pass of one micro-batch: about 34 T B D numbers of 2 bytes a layer.

    Reference: Korthikanti et al. 2022, equation 2, without the attention matrix, which SDPA does not keep; times
    two for fp32, and one chunk of logits.
    """
    tokens = run.data.batch_size // run.data.micro_batches * run.data.sequence_length
    logits = 3 * 4 * run.loss.chunk_tokens * (run.model.vocab_size or 0)
    return 34 * 2 * tokens * run.model.width * run.model.num_layers + logits


def _measure(run: RunConfig, device: torch.device) -> float:
    """Time of the forward and backward passes of one step on random tokens [s]."""
    model = build_model(run, device)
    objective = Objective(model, run.loss, device, "fp32" if run.precision == "auto" else run.precision)
    shape = (run.data.batch_size // run.data.micro_batches, run.data.sequence_length)
    tokens = torch.randint(run.model.vocab_size or 1, shape)
    return run.data.micro_batches * time_pass(objective, model, (tokens, tokens))


def _rate(device: torch.device) -> tuple[float, str]:
    peak = peak_flops(device)
    if peak:
        return EXPECTED_MFU * peak, f"{EXPECTED_MFU:.0%} of the device's {peak / 1e12:.0f} TFLOP/s peak"
    size, best = 1024, float("inf")
    left, right = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    for _ in range(4):
        started = time.perf_counter()
        (left @ right)[0, 0].item()
        best = min(best, time.perf_counter() - started)
    measured = 2 * size**3 / best
    return SHARE_OF_GEMM * measured, f"{SHARE_OF_GEMM:.0%} of {measured / 1e9:.0f} GFLOP/s measured in fp32 here"
