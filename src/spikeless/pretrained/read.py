"""Read a Hugging Face folder: its config.json, its weights one by one, its tokenizer."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from spikeless.data import Tokenizer, load_tokenizer
from spikeless.data.tokenizers import has_tokenizer
from spikeless.errors import UserError
from spikeless.nn.transformer import ModelConfig, Transformer
from spikeless.pretrained.describe import family_of, read_description
from spikeless.pretrained.match import check_tied, is_buffer, tied_names, unwrapped
from spikeless.weights import Weights, open_weights
from spikeless.weights.reader import read_whole
from spikeless.weights.regular import RegularFile
from spikeless.weights.strict_json import parse_object
from spikeless.words import counted

__all__ = ["Pretrained", "check_pretrained", "read_config", "read_pretrained", "weights_hash"]

STORED = ("F32", "BF16", "F16")


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """What a Hugging Face folder holds.

    Attributes:
        folder: where it is.
        config: the model.
        state: our state dict, fp32.
    """

    folder: Path
    config: ModelConfig
    state: dict[str, Tensor]

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """Read when it is asked for; None if the folder has none.

        Raises:
            UserError: it is damaged, or has no end-of-text token.
        """
        return load_tokenizer(self.folder) if has_tokenizer(self.folder) else None

    def build(self) -> Transformer:
        """The model with these weights, ready to compute."""
        model = Transformer(self.config)
        model.load_state_dict(self.state)
        return model.eval()


def read_config(folder: Path) -> ModelConfig:
    """The model that a folder's config.json describes; no weight is read.

    Raises:
        UserError: no such file, or a model that we do not have: its family, field or value is named.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} is no Hugging Face folder: it has no config.json")
    with RegularFile(path) as file:
        data = parse_object(read_whole(file), str(path))
    if "model_type" not in data:
        raise UserError(f"{path} lacks 'model_type'")
    return read_description(data, str(path))


def check_pretrained(folder: Path) -> ModelConfig:
    """The model of a folder whose headers have been read: all weights are there, with the right shapes and types.

    Raises:
        UserError: as for `read_pretrained`, but for what only the numbers tell.
    """
    return _matched(folder)[0]


def read_pretrained(folder: Path, *, finite: bool = True) -> Pretrained:
    """A folder's model with fp32 weights.

    Args:
        folder: where it is.
        finite: refuse weights that are not finite.

    Raises:
        UserError: no such folder, a model that we do not have, a missing or unknown tensor or one of a wrong shape or
            type, or a damaged file.
    """
    config, weights, names, tied = _matched(folder)
    check_tied(weights, names, tied)
    family = family_of(config.family, str(folder))
    state: dict[str, Tensor] = {}
    for name, stored in names.items():
        if any(name in group[1:] for group in tied):
            continue  # the same numbers once more
        tensor = weights.read(stored)
        if finite and not tensor.isfinite().all():
            raise UserError(f"{folder}: the weight {name} is not finite")
        state[name] = tensor.float()
    ours = {name: each.clone() for name, each in family.from_hugging_face(state, config).items()}
    return Pretrained(folder=folder, config=config, state=ours)


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """The SHA-256 of names and fp32 values, hexadecimal; the same however the folder is sharded."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].float().contiguous().numpy().data)
    return digest.hexdigest()


def _matched(folder: Path) -> tuple[ModelConfig, Weights, dict[str, str], list[list[str]]]:
    """The model; for each of its weights, as the family calls it, the name that is stored; groups of tied names."""
    config = read_config(folder)
    family = family_of(config.family, str(folder))
    weights = open_weights(folder)
    count = len(weights.tensors)
    if config.num_layers > count:
        raise UserError(
            f"{folder}: config.json wants {counted(config.num_layers, 'layer')}, but the files hold "
            f"{counted(count, 'tensor')}"
        )
    table, largest = (config.vocab_size or 0) * config.width, max(each.elements for each in weights.tensors.values())
    if table > largest:
        raise UserError(
            f"{folder}: config.json wants an embedding of {config.vocab_size:,} x {config.width:,}, "
            f"but no tensor has more than {largest:,} numbers"
        )
    with torch.device("meta"):
        wanted = family.to_hugging_face(Transformer(config).state_dict(), config)
    tied = tied_names(wanted.items())
    names = _stored_names(weights, wanted, family.prefix, folder)
    for group in tied:  # one is enough, whichever it is
        there = next((names[name] for name in group if name in names), None)
        names |= {name: there for name in group if there and name not in names}
    for name, like in wanted.items():
        if name not in names:
            raise UserError(f"{folder}: the weight {name} is missing")
        info = weights.tensors[names[name]]
        if tuple(info.shape) != tuple(like.shape):
            raise UserError(
                f"{folder}: the weight {name} has the shape {list(info.shape)}; config.json wants {list(like.shape)}"
            )
        if info.dtype not in STORED:
            raise UserError(f"{folder}: the weight {name} is stored as {info.dtype}; {', '.join(STORED)} can be read")
    return config, weights, {name: names[name] for name in wanted}, tied


def _stored_names(weights: Weights, wanted: Collection[str], prefix: str, folder: Path) -> dict[str, str]:
    """Name that we want to name that is stored.

    Raises:
        UserError: a stored tensor is none of the model's.
    """
    names = unwrapped(weights.tensors, wanted, prefix, str(folder))
    for name, plain in names.items():
        if plain not in wanted and not is_buffer(weights.tensors[name]):
            raise UserError(
                f"{folder}: the model has no weight {name}; config.json and the weights do not fit together"
                + (" (an adapter's; merge it into its model first)" if "lora_" in name else "")
            )
    return {plain: name for name, plain in names.items() if plain in wanted}
