"""Which stored tensor is which weight of a model: wrappers, prefixes, tied weights, buffers."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor

from spikeless.errors import UserError
from spikeless.weights import TensorInfo, Weights
from spikeless.weights.names import common_wrappers

__all__ = ["check_tied", "is_buffer", "tied_names", "unwrapped"]

BUFFERS = re.compile(
    r"(.*\.)?(rotary_emb|rotary|attention|attn|self_attn)\.(inv_freq|masked_bias)|(.*\.)?rotary_emb\.inv_freq"
    r"|(.*\.)?position_ids"
)
MASKS = re.compile(r"(.*\.)?(attn|attention)\.bias")
"""Tensors that some versions of `transformers` store although they are no weights."""
CHUNK_ROWS = 1024


def is_buffer(info: TensorInfo) -> bool:
    """Whether a tensor is none of a model's weights: a causal mask, positions, frequencies."""
    return bool(BUFFERS.fullmatch(info.name) or (MASKS.fullmatch(info.name) and len(info.shape) == 4))


def unwrapped(stored: Collection[str], wanted: Collection[str], prefix: str, where: str) -> dict[str, str]:
    """For each stored tensor the name that the model has for it; its own name where the model has none.

    A module around the whole model (`inner.model.…`) is left out, and the family's own prefix is put back where the
    bare model was saved.

    Args:
        stored: names in the file.
        wanted: names of the model's weights.
        prefix: what most of them begin with, such as "model.".
        where: begins messages.

    Raises:
        UserError: two stored tensors are one weight.
    """

    def full(name: str) -> str:
        return name if name in wanted or prefix + name not in wanted else prefix + name

    def known(cut: str) -> int:
        return sum(full(name.removeprefix(cut)) in wanted for name in stored)

    cut = max(common_wrappers(stored), key=known)  # of equals the first, which cuts off least
    names, origin = {name: full(name.removeprefix(cut)) for name in stored}, dict[str, str]()
    for name, plain in names.items():
        if plain in origin:
            raise UserError(f"{where}: {origin[plain]} and {name} are the same weight; store it once")
        origin[plain] = name
    return names


def tied_names(named: Iterable[tuple[str, Any]]) -> list[list[str]]:
    """Groups of names that stand for one and the same tensor object."""
    groups: dict[int, list[str]] = {}
    for name, tensor in named:
        groups.setdefault(id(tensor), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def check_tied(weights: Weights, names: Mapping[str, str], groups: Iterable[Iterable[str]]) -> None:
    """Refuse a model whose weights are tied by its configuration and differ in the file.

    Args:
        weights: the file.
        names: the stored name of each weight.
        groups: names of the weights that are tied.

    Raises:
        UserError: two that differ.
    """
    for group in groups:
        first, *others = [name for name in group if name in names] or [""]
        for other in others:
            if not _equal(weights, names[first], names[other]):
                raise UserError(
                    f"{weights.folder}: {other} is not the same as {first}, although config.json ties them; "
                    'write "tie_word_embeddings": false into it if they are meant to differ'
                )


def _equal(weights: Weights, one: str, other: str) -> bool:
    """Whether two tensors hold the same numbers, where NaN is NaN."""
    a, b = weights.tensors[one], weights.tensors[other]
    if (a.file, a.begin, a.end, a.shape) == (b.file, b.begin, b.end, b.shape):
        return True
    if a.shape != b.shape:
        return False
    if len(a.shape) != 2:
        return _same(weights.read(one), weights.read(other))
    chunks = (weights.rows(each.name, CHUNK_ROWS * max(1, (each.end - each.begin) // each.shape[0])) for each in (a, b))
    return all(_same(left, right) for left, right in zip(*chunks, strict=True))


def _same(one: Tensor, other: Tensor) -> bool:
    return bool(((one == other) | (one.isnan() & other.isnan())).all())
