"""Which tensor of a checkpoint is the input embedding, and whether the output head shares it."""

import re
from collections.abc import Mapping
from typing import Any

import torch

from spikeless.errors import UserError, nearest
from spikeless.weights import TensorInfo, Weights

__all__ = ["ELSEWHERE", "SCALES", "count_parameters", "find_embedding", "is_head", "is_tied", "text_config"]

TABLES = (  # the last part of the name, without ".weight", in the families that we know of
    "wte",  # GPT-2, MPT, Qwen 1
    "embed_tokens",  # Llama, Mistral, OPT, Qwen, Gemma, Phi
    "word_embeddings",  # BLOOM, Falcon
    "embed_in",  # GPT-NeoX, Pythia
    "tok_embeddings",  # Llama as Meta gives it
    "tokens_embed",  # GPT
    "token_embedding",
    "token_embeddings",
    "embedding",  # ours
    "embeddings",  # Mamba
    "shared",  # T5
)
HEADS = (".lm_head", ".embed_out", ".output_layer", ".output", ".head", ".lm_head.linear")
ELSEWHERE = re.compile(r"(^|[._])(vision|visual|image|audio|speech|vit|encoder|projector)([._]|$)|\.\d+\.|^\d+\.")
BUFFERS = re.compile(r"(\.attn\.bias|\.attention\.bias|masked_bias|inv_freq|_scale(_inv)?)$")
WITH_HEAD = re.compile(r"LMHead|ForCausalLM|ForConditionalGeneration")
SCALES = ("weight_scale", "weight_scale_inv", "scale", "scale_inv")
"""What may stand beside a quantised tensor; all of them multiply."""
COMPARED_BYTES = 1 << 16
LISTED = 8


def find_embedding(
    weights: Weights, config: Mapping[str, Any], name: str | None = None, *, tied: bool = False
) -> TensorInfo:
    """The input embedding [V, D].

    It is the matrix whose name ends as embeddings do, outside of layers and of other modalities. Where several are
    left, those with too few rows for the vocabulary of `config.json` are passed over; where there is none, and head
    and table are tied, it is the head.

    Args:
        weights: where to look.
        config: the text part of `config.json`; may be empty.
        name: the tensor's name, if the user gives it.
        tied: whether the model ties its head to the table.

    Raises:
        UserError: none, or several that might be it; a given name that is not there or not a matrix of numbers.
    """
    matrices = {each: info for each, info in weights.tensors.items() if _is_matrix(info)}
    if name is not None:
        if name not in matrices:
            raise UserError(f"{weights.path} has no matrix {name!r}; {nearest(name, matrices, 'matrix')}")
        return matrices[name]
    found = [info for each, info in matrices.items() if _stem(each) in TABLES and not ELSEWHERE.search(each)]
    if not found and tied:
        found = [info for each, info in matrices.items() if is_head(each)]
    vocab = config.get("vocab_size")
    if len(found) > 1 and isinstance(vocab, int):
        found = [info for info in found if info.shape[0] >= vocab] or found
    if len(found) == 1:
        return found[0]
    listed = [info.name for info in found] or list(matrices)
    shown = ", ".join(f"{each} {list(matrices[each].shape)}" for each in listed[:LISTED])
    shown += f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    fault = "several input embeddings" if found else "no input embedding found"
    raise UserError(f"{weights.path}: {fault}; the matrices are: {shown or 'none'}. Name one with --tensor NAME")


def is_tied(weights: Weights, embedding: TensorInfo, config: Mapping[str, Any]) -> bool | None:
    """True if the output head is the embedding's table, False if it has its own, None if that cannot be told.

    A head in the file decides: it is compared with the table byte by byte up to the first difference. Without one, a
    model that has a head must share the table, unless its configuration says otherwise.
    """
    heads = [info for name, info in weights.tensors.items() if is_head(name) and info.shape == embedding.shape]
    if heads:
        return _same_bytes(weights, embedding, heads[0])
    if any(is_head(name) and len(info.shape) == 2 for name, info in weights.tensors.items()):
        return False
    architectures = config.get("architectures")
    has_head = (
        not isinstance(architectures, list)
        or not architectures
        or any(WITH_HEAD.search(str(each)) for each in architectures)
    )
    if not config or not has_head or config.get("tie_word_embeddings") is False:
        return None
    return True


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a `config.json` says of the language model, also inside a multimodal one."""
    inner = config.get("text_config", config.get("llm_config"))
    return {**config, **inner} if isinstance(inner, Mapping) else dict(config)


def count_parameters(weights: Weights) -> int:
    """Numbers in the floating-point tensors of the files, each once, but for known buffers."""
    stored = {(info.file, info.begin, info.end): (name, info) for name, info in weights.tensors.items()}
    return sum(
        info.elements
        for name, info in stored.values()
        if info.dtype.startswith(("F", "BF")) and not (BUFFERS.search(name) and _is_buffer(info))
    )


def _is_buffer(info: TensorInfo) -> bool:
    return len(info.shape) != 1 or not info.name.endswith(".bias")


def _is_matrix(info: TensorInfo) -> bool:
    return len(info.shape) == 2 and min(info.shape) > 0 and info.dtype.startswith(("F", "BF"))


def _stem(name: str) -> str:
    return name.removesuffix(".weight").rpartition(".")[2] if name.endswith(".weight") else ""


def is_head(name: str) -> bool:
    """Whether a tensor of this name is an output head."""
    stem = name.removesuffix(".weight")
    return stem != name and not ELSEWHERE.search(name) and f".{stem}".endswith(HEADS)


def _same_bytes(weights: Weights, one: TensorInfo, other: TensorInfo) -> bool:
    if one.dtype != other.dtype:
        return False
    if (one.file, one.begin) == (other.file, other.begin):
        return True
    pairs = zip(weights.rows(one.name, COMPARED_BYTES), weights.rows(other.name, COMPARED_BYTES), strict=True)
    return all(torch.equal(left.view(torch.uint8), right.view(torch.uint8)) for left, right in pairs)
