"""What the checks on weights share: which tensors are matrices, how to name several, and the known schemes."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spikeless.preflight.measurements import Measurements, TensorReading
from spikeless.words import counted

__all__ = [
    "READERS",
    "WRITERS",
    "Factors",
    "at_worst",
    "factors",
    "is_matrix",
    "known_stds",
    "listed",
    "placed_matrices",
    "relative_noise",
    "written",
]

READERS = ("query", "key", "value", "ffn_up", "ffn_gate")
WRITERS = ("attention_out", "ffn_down")
PLACED = (*READERS, *WRITERS, "head", "token_embedding", "position_embedding")


@dataclass(frozen=True, kw_only=True)
class Factors:
    """Two matrices of one role and layer whose product stands for a dense one."""

    outer: TensorReading
    inner: TensorReading

    @property
    def std(self) -> float:
        """Of the product's entries, for independent factors: sqrt(r) s_1 s_2."""
        return math.sqrt(self.inner.fan_out) * self.outer.std * self.inner.std


def is_matrix(tensor: TensorReading) -> bool:
    """Not a vector, nor one that is stored with a dimension of 1."""
    return min(tensor.fan_in, tensor.fan_out) > 1


def placed_matrices(measured: Measurements) -> list[TensorReading]:
    """The matrices whose role is known."""
    return [each for each in measured.tensors if each.role in PLACED and is_matrix(each)]


def factors(tensors: Iterable[TensorReading]) -> dict[str, Factors]:
    """The pairs of low-rank factors, under the names of both."""
    groups: dict[tuple[str | None, int | None], list[TensorReading]] = defaultdict(list)
    for each in tensors:
        if each.role in READERS + WRITERS and is_matrix(each):
            groups[each.role, each.layer].append(each)
    pairs = {}
    for group in groups.values():
        if len(group) == 2:
            for outer, inner in (group, group[::-1]):
                if outer.fan_in == inner.fan_out < min(outer.fan_out, inner.fan_in) and outer.name not in pairs:
                    pairs[outer.name] = pairs[inner.name] = Factors(outer=outer, inner=inner)
    return pairs


def relative_noise(tensor: TensorReading) -> float:
    """Standard error of the std of that many normal draws, relative to it: 1/sqrt(2 n)."""
    return 1 / math.sqrt(2 * max(1, math.prod(tensor.shape)))


def listed(tensors: Sequence[TensorReading]) -> str:
    """Names one of them, and counts the others."""
    if len(tensors) == 1:
        return tensors[0].name
    layers = {each.layer for each in tensors if each.layer is not None}
    place = f" in {counted(len(layers), 'layer')}" if len(layers) > 1 else ""
    return f"{counted(len(tensors), 'tensor')}{place}, such as {tensors[0].name},"


def at_worst(tensors: Sequence[TensorReading]) -> str:
    """The words behind a number that is the worst of several."""
    return " at worst" if len(tensors) > 1 else ""


def written(tensor: TensorReading) -> bool:
    """False for memory that is known to hold garbage; broken_weights reports it."""
    return tensor.declared is None or tensor.declared.written


def known_stds(
    role: str | None, fan_in: int, fan_out: int, layer: int | None, width: int, num_layers: int
) -> dict[str, float]:
    """Standard deviations that known schemes give a matrix, by their formula."""
    embedding = role in ("token_embedding", "position_embedding")
    dense = {
        "N(0, 0.02^2)": 0.02,
        "N(0, 0.006^2)": 0.006,
        "small init, sqrt(2/(5 D))": math.sqrt(2 / (5 * width)),
        "Xavier, sqrt(2/(d_in + d_out))": math.sqrt(2 / (fan_in + fan_out)),
        "LeCun, 1/sqrt(d_in)": 1 / math.sqrt(fan_in),
    }
    if embedding:
        return dense | {"N(0, 1), torch's default for embeddings": 1.0, "N(0, 0.01^2)": 0.01}
    dense["torch's default for linear maps, 1/sqrt(3 d_in)"] = 1 / math.sqrt(3 * fan_in)
    dense["muP from width 256, 0.02 sqrt(256/d_in)"] = 0.02 * math.sqrt(256 / fan_in)
    if role == "head":
        return dense | {"muP's head from width 256, 0.02 * 256/D": 0.02 * 256 / width}
    known = dict(dense)
    if role in (*WRITERS, "value", "ffn_up"):
        known["DeepNorm, Xavier/(8 L)^(1/4)"] = math.sqrt(2 / (fan_in + fan_out)) / (8 * num_layers) ** 0.25
    if role in WRITERS:
        known |= {f"{name}, over sqrt(2 L)": std / math.sqrt(2 * num_layers) for name, std in dense.items()}
        known["Wang's, 2/(L sqrt(D))"] = 2 / (num_layers * math.sqrt(width))
        if layer is not None:
            by_layer = math.sqrt(2 * (layer + 1))
            known |= {f"{name}, over sqrt(2 l) in layer l": std / by_layer for name, std in dense.items()}
    return known
