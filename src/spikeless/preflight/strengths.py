"""Sizes and standard deviations of the initialisation of one of our runs, without drawing its weights."""

import math
from collections import defaultdict
from typing import Any, Literal

from spikeless.init import standard_deviations
from spikeless.nn.projection import LowRankLinear, product_std, spectral_norm_of_product
from spikeless.nn.transformer import Transformer
from spikeless.preflight.theory import MatrixStrength, Strengths, SubLayerStrengths
from spikeless.roles import Role, role_of
from spikeless.run import RunConfig
from spikeless.training.build import build_model

__all__ = ["strengths_of"]

ATTENTION = (Role.QUERY, Role.KEY, Role.VALUE, Role.ATTENTION_OUT)
FFN = (Role.FFN_UP, Role.FFN_GATE, Role.FFN_DOWN)


def strengths_of(run: RunConfig, tokens: int) -> Strengths:
    """What theory needs of a run; the model is built with shapes only.

    Args:
        run: its blocks are taken as sequential, norm first, unless its `residual` part has a `form` "parallel" or
            "sandwich", as those of `proxy_run` may.
        tokens: in a sequence.

    Raises:
        UserError: the run makes no model.
    """
    config, model = run.model, build_model(run, "meta")
    stds = standard_deviations(model, run.init, width=config.width, num_layers=config.num_layers)
    blocks: dict[int, dict[str, MatrixStrength]] = defaultdict(dict)
    for name, matrix in _matrices(model, stds).items():
        if name.startswith("blocks."):
            blocks[int(name.split(".")[1])][role_of(f"{name}.weight").value] = matrix
    embedding: Any = config.embedding
    norm = getattr(embedding, "norm", None)
    return Strengths(
        width=config.width,
        vocab_size=model.embedding.weight.shape[0],
        tokens=tokens,
        embedding_std=stds["embedding.weight"],
        multiplier=getattr(embedding, "multiplier", 1.0),
        embedding_norm=None if norm is None else _kind(norm),
        embedding_eps=getattr(norm, "eps", 0.0),
        positions_std=stds.get("positions.weight"),
        blocks=tuple(_sub_layers(run, blocks[layer]) for layer in range(config.num_layers)),
    )


def _matrices(model: Transformer, stds: dict[str, float]) -> dict[str, MatrixStrength]:
    """The dense matrices and low-rank products, by module."""
    found: dict[str, MatrixStrength] = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and name in stds:
            d_out, d_in = parameter.shape
            found[name.removesuffix(".weight")] = MatrixStrength(std=stds[name], d_out=d_out, d_in=d_in)
    for name, module in model.named_modules():
        if isinstance(module, LowRankLinear):
            up, down = found.pop(f"{name}.up"), found.pop(f"{name}.down")
            norm = spectral_norm_of_product(module.d_out, module.rank, module.d_in)
            found[name] = MatrixStrength(
                std=product_std(math.sqrt(up.std * down.std), module.rank),
                d_out=module.d_out,
                d_in=module.d_in,
                spectral=up.std * down.std * norm,
            )
    return found


def _sub_layers(run: RunConfig, matrices: dict[str, MatrixStrength]) -> tuple[SubLayerStrengths, ...]:
    form = getattr(run.model.residual, "form", "pre-norm")
    shared: dict[str, Any] = {
        "activation": getattr(run.model.ffn, "activation", "gelu_tanh"),
        "norm_gain": getattr(run.model.residual, "norm_gain", 1.0),
        "norm_eps": getattr(run.model.norm, "eps", 0.0),
        "logit_variance": getattr(run.model.attention, "logit_variance", None),
        "output_norm": 1.0 if form == "sandwich" else None,
    }
    if form == "parallel":
        return (SubLayerStrengths(kind="parallel", matrices=matrices, **shared),)
    attention, ffn = (
        {role.value: matrices[role.value] for role in roles if role in matrices} for roles in (ATTENTION, FFN)
    )
    return (
        SubLayerStrengths(kind="attention", matrices=attention, **shared),
        SubLayerStrengths(kind="ffn", matrices=ffn, **shared),
    )


def _kind(norm: object) -> Literal["layernorm", "rmsnorm"]:
    return "rmsnorm" if "rms" in type(norm).__name__.lower() else "layernorm"
