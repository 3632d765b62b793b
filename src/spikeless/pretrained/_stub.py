"""Stands in for `spikeless.weights` until that room is there."""

from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from spikeless.files import read_json


@dataclass
class Info:
    dtype: str
    shape: tuple[int, ...]
    file: Path


class Weights:
    def __init__(self, folder: Path) -> None:
        index = folder / "model.safetensors.index.json"
        names = set(read_json(index)["weight_map"].values()) if index.exists() else {"model.safetensors"}
        self.tensors = {}
        for file in sorted(names):
            with safe_open(folder / file, "pt") as opened:
                for key in opened.keys():  # noqa: SIM118
                    each = opened.get_slice(key)
                    self.tensors[key] = Info(each.get_dtype(), tuple(each.get_shape()), folder / file)

    def read(self, name: str) -> Tensor:
        with safe_open(self.tensors[name].file, "pt") as opened:
            return opened.get_tensor(name)


def open_weights(folder: Path) -> Weights:
    return Weights(folder)
