"""What a row of the table goes through on its way into the residual stream."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from spikeless.evaluation.tev.families import FACTORS, NORMED, PROJECTED, ROOTS, ROUNDED_ROOTS, unfamiliar
from spikeless.nn.embedding import TokenEmbedding
from spikeless.nn.norm import LayerNorm, RMSNorm
from spikeless.weights import TensorInfo, Weights
from spikeless.weights.header import DTYPES

__all__ = ["Entry", "hugging_face_entry", "our_entry"]

REAL = ("F64", "F32", "BF16", "F16")
TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A multiplier, then a function.

    Attributes:
        description: in words, for the table.
        multiplier: factor on the row [dimensionless].
        function: rows [n, D] to rows [n, D'], multiplied already and in the type that they have; None if there is none.
        known: False if it cannot be told what happens to a row.
    """

    description: str = "none"
    multiplier: float = 1.0
    function: Callable[[Tensor], Tensor] | None = None
    known: bool = True


def our_entry(embedding: object, weights: Weights) -> Entry:
    """That of one of our own checkpoints, from its run's configuration."""
    if not isinstance(embedding, TokenEmbedding):
        return Entry(description=f"unknown: {type(embedding).__name__}", known=False)
    words = [] if embedding.multiplier == 1.0 else [f"× {embedding.multiplier:.4g}"]
    norm = embedding.norm
    if norm is None:
        return Entry(description=", ".join(words) or "none", multiplier=embedding.multiplier)
    if not isinstance(norm, LayerNorm | RMSNorm):
        return Entry(description=f"unknown: {type(norm).__name__}", known=False)
    return Entry(
        description=", ".join([*words, type(norm).__name__]),
        multiplier=embedding.multiplier,
        function=_norm(weights, "embedding.norm", norm.eps, centred=isinstance(norm, LayerNorm)),
    )


def hugging_face_entry(table: TensorInfo, config: Mapping[str, Any], wrapper: str | None, weights: Weights) -> Entry:
    """That of a Hugging Face model, if its family, its configuration and what lies beside its table are known."""
    strange = unfamiliar(table, config, wrapper, weights)
    if strange is not None:
        return _unknown(strange)
    kind, width = str(config["model_type"]), table.shape[1]
    place = table.name.removesuffix(".weight").rpartition(".")[0]
    beside = f"{place}." if place else ""
    if kind in NORMED:
        return _normed(f"{beside}word_embeddings_layernorm", width, config, weights)
    if kind in PROJECTED:
        return _projected(f"{beside}project_in.weight", width, config, weights)
    if kind in ROUNDED_ROOTS:
        return _times(float(torch.tensor(width**0.5, dtype=_computed_in(kind, table, config))))
    if kind in ROOTS:
        field, default = ROOTS[kind]
        stated = config.get(field, default)
        return _times(width**0.5 if stated else 1.0) if isinstance(stated, bool) else _unknown(f"{field} = {stated!r}")
    if kind in FACTORS:
        field, default = FACTORS[kind]
        value = default if config.get(field) is None else _number(config, field)
        return _unknown(field) if value is None else _times(value)
    return Entry()


def _unknown(why: str) -> Entry:
    return Entry(description=f"unknown: {why[:80]}", known=False)


def _times(value: float) -> Entry:
    return Entry() if value == 1 else Entry(description=f"× {value:.4g}", multiplier=value)


def _normed(name: str, width: int, config: Mapping[str, Any], weights: Weights) -> Entry:
    eps = _number(config, "layer_norm_epsilon")
    if not all(_fits(weights, f"{name}.{part}", (width,)) for part in ("weight", "bias")):
        return _unknown("a norm of another width")
    function = _norm(weights, name, 1e-5 if eps is None else eps, centred=True)
    return Entry(description="LayerNorm", function=function)


def _projected(name: str, width: int, config: Mapping[str, Any], weights: Weights) -> Entry:
    if name not in weights.tensors:
        narrow = config.get("word_embed_proj_dim") not in (None, config.get("hidden_size"))
        return _unknown("no project_in") if narrow else Entry()
    shape = weights.tensors[name].shape
    if len(shape) != 2 or not _fits(weights, name, (shape[0], width)):
        return _unknown("a projection of another width")
    matrix = weights.read(name)
    function = lambda rows: functional.linear(rows, matrix.to(rows.dtype))  # noqa: E731
    return Entry(description=f"projection to {shape[0]}", function=function)


def _computed_in(kind: str, table: TensorInfo, config: Mapping[str, Any]) -> torch.dtype:
    if kind == "recurrent_gemma":
        return torch.bfloat16
    stated = str(config.get("dtype", config.get("torch_dtype"))).removeprefix("torch.")
    stored = DTYPES[table.dtype][1]
    return TYPES.get(stated) or (stored if stored is not None and stored in TYPES.values() else torch.bfloat16)


def _number(config: Mapping[str, Any], key: str) -> float | None:
    """A number of a configuration that fp32 can hold; None if there is none."""
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= torch.finfo(torch.float32).max else None


def _fits(weights: Weights, name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is there, has this shape and is of real numbers."""
    info = weights.tensors.get(name)
    return info is not None and tuple(info.shape) == shape and info.dtype in REAL


def _norm(weights: Weights, name: str, eps: float, *, centred: bool) -> Callable[[Tensor], Tensor]:
    gain = weights.read(f"{name}.weight")
    bias = weights.read(f"{name}.bias") if f"{name}.bias" in weights.tensors else None

    def normalise(rows: Tensor) -> Tensor:
        own_gain, own_bias = gain.to(rows.dtype), None if bias is None else bias.to(rows.dtype)
        if centred:
            return functional.layer_norm(rows, gain.shape, own_gain, own_bias, eps)
        return functional.rms_norm(rows, gain.shape, own_gain, eps)

    return normalise
