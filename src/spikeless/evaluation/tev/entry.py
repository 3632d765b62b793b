"""What a row of the table goes through on its way into the residual stream."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from spikeless.nn.embedding import TokenEmbedding
from spikeless.nn.norm import LayerNorm, RMSNorm
from spikeless.weights import TensorInfo, Weights
from spikeless.weights.header import DTYPES

__all__ = ["Entry", "hugging_face_entry", "our_entry"]

MULTIPLIERS = ("embedding_multiplier", "scale_emb", "embedding_multiplier_scale", "mup_embeddings_scale")
"""Factors on the table: of Granite and Falcon-H1, MiniCPM, Grok, and models in µP."""
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


def hugging_face_entry(embedding: TensorInfo, config: Mapping[str, Any], weights: Weights) -> Entry:
    """That of a Hugging Face model: from what lies beside its table, and from its configuration.

    Gemma multiplies by sqrt(D), rounded to the type it computes in; `scale_embedding` (BART, XGLM) by sqrt(D);
    `MULTIPLIERS` are factors. BLOOM has a LayerNorm; OPT
    with a narrow table has a projection, `project_in`.
    """
    place = embedding.name.removesuffix(".weight").rpartition(".")[0]
    beside = f"{place}." if place else ""
    width = embedding.shape[1]
    multiplier, word = _multiplier(embedding, config)
    if f"{beside}word_embeddings_layernorm.weight" in weights.tensors:
        eps = _number(config, "layer_norm_epsilon")
        name = f"{beside}word_embeddings_layernorm"
        if not _fits(weights, f"{name}.weight", (width,)) or not _fits(weights, f"{name}.bias", (width,)):
            return Entry(description="unknown: a norm of another width", known=False)
        function = _norm(weights, name, 1e-5 if eps is None else eps, centred=True)
        return Entry(description="LayerNorm", function=function)
    if f"{beside}project_in.weight" in weights.tensors:
        shape = weights.tensors[f"{beside}project_in.weight"].shape
        if len(shape) != 2 or not _fits(weights, f"{beside}project_in.weight", (shape[0], width)):
            return Entry(description="unknown: a projection of another width", known=False)
        table = weights.read(f"{beside}project_in.weight")
        function = lambda rows: functional.linear(rows, table.to(rows.dtype))  # noqa: E731
        return Entry(description=f"projection to {table.shape[0]}", function=function)
    if any(f"{beside}{norm}.weight" in weights.tensors for norm in ("LayerNorm", "norm_emb")):
        return Entry(description="unknown: a norm after the positions", known=False)
    if not config:
        return Entry(description="unknown: no config.json", known=False)
    return Entry(description=word, multiplier=multiplier)


def _multiplier(embedding: TensorInfo, config: Mapping[str, Any]) -> tuple[float, str]:
    width = embedding.shape[1]
    kind = str(config.get("model_type", ""))
    if "gemma" in kind:
        computed = TYPES.get(str(config.get("dtype", config.get("torch_dtype"))).removeprefix("torch."))
        stored = DTYPES[embedding.dtype][1]
        dtype = computed or (stored if stored in TYPES.values() else torch.bfloat16)
        dtype = torch.bfloat16 if kind == "recurrent_gemma" else dtype
        value = float(torch.tensor(width**0.5, dtype=dtype))
        return value, f"× {value:.4g}"
    if config.get("scale_embedding") is True:
        return width**0.5, f"× {width**0.5:.4g}"
    for key in MULTIPLIERS:
        value = _number(config, key)
        if value is not None and value != 1:
            return value, f"× {value:.4g}"
    return 1.0, "none"


def _number(config: Mapping[str, Any], key: str) -> float | None:
    """A number of a configuration that fp32 can hold; None if there is none."""
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= torch.finfo(torch.float32).max else None


def _fits(weights: Weights, name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor has this shape and is of real numbers, or is not there."""
    info = weights.tensors.get(name)
    return info is None or (tuple(info.shape) == shape and info.dtype in REAL)


def _norm(weights: Weights, name: str, eps: float, *, centred: bool) -> Callable[[Tensor], Tensor]:
    gain = weights.read(f"{name}.weight")
    bias = weights.read(f"{name}.bias") if f"{name}.bias" in weights.tensors else None

    def normalise(rows: Tensor) -> Tensor:
        own_gain, own_bias = gain.to(rows.dtype), None if bias is None else bias.to(rows.dtype)
        if centred:
            return functional.layer_norm(rows, gain.shape, own_gain, own_bias, eps)
        return functional.rms_norm(rows, gain.shape, own_gain, eps)

    return normalise
