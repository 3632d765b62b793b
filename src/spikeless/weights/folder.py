"""From a path to the tensors below it: one file, a folder with one, or a folder with shards and their index."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from reprlib import repr as brief
from typing import Any

from spikeless.errors import UserError
from spikeless.weights.header import TensorInfo, read_header
from spikeless.weights.reader import OpenFile, Weights, read_whole
from spikeless.weights.regular import RegularFile
from spikeless.weights.strict_json import parse_object

__all__ = ["INDEX_SUFFIX", "PICKLES", "SINGLE", "SUFFIX", "assemble", "open_weights"]

SUFFIX, INDEX_SUFFIX = ".safetensors", ".safetensors.index.json"
SINGLE = "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
WAY_OUT = (
    "it is a pickle, which can run code as it is read, so it is refused; convert it once, in a place you trust: "
    "`AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)` of transformers, or "
    "`safetensors.torch.save_file({{k: v.clone() for k, v in torch.load({name!r}, weights_only=True).items()}}, "
    "'model.safetensors')`"
)


def open_weights(path: Path | str) -> Weights:
    """The tensors of a `.safetensors` file, of an index file with its shards, or of a folder with either.

    Only headers are read. A file of a folder may be a link, if it stays inside the folder or, in a cache of the
    Hugging Face hub, leads from `snapshots/` to the `blobs/` of the same repository. A file that is named itself may
    lead anywhere.

    Raises:
        UserError: nothing of the kind is there, or what is there contradicts itself.
    """
    path = Path(path)
    if not path.is_dir():
        if path.suffix in PICKLES and path.exists():
            raise UserError(f"{path}: {WAY_OUT.format(name=path.name)}")
        if path.name.endswith(INDEX_SUFFIX):
            return assemble(path.parent, path.name, opener(path.parent), path)
        return assemble(path.parent, path.name, RegularFile, path)
    try:
        names = sorted(each.name for each in path.iterdir())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    return assemble(path, weights_file(path, names), opener(path))


def weights_file(folder: Path, names: Sequence[str]) -> str:
    """Which of a folder's files holds its weights, or the index of them.

    Raises:
        UserError: none, or several that might.
    """
    if SINGLE in names:
        return SINGLE
    indices = [name for name in names if name.endswith(INDEX_SUFFIX)]
    candidates = indices or [name for name in names if name.endswith(SUFFIX)]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise UserError(f"{folder} has several: {', '.join(candidates[:5])}; name one of them")
    pickles = [name for name in names if Path(name).suffix in PICKLES]
    if pickles:
        raise UserError(f"{folder / pickles[0]}: {WAY_OUT.format(name=pickles[0])}")
    raise UserError(f"{folder} holds no .safetensors file")


def assemble(folder: Path, name: str, open_file: OpenFile, path: Path | None = None) -> Weights:
    """The tensors of one file of a folder, or of all the shards that an index file names.

    Raises:
        UserError: an index that is malformed, leaves the folder, or does not agree with its shards.
    """
    if not name.endswith(INDEX_SUFFIX):
        with open_file(folder / name) as file:
            tensors, metadata = read_header(file)
        return Weights(tensors=tensors, metadata=metadata, path=path or folder, folder=folder, open_file=open_file)
    weight_map, metadata = _read_index(folder / name, open_file)
    tensors: dict[str, TensorInfo] = {}
    for shard in dict.fromkeys(weight_map.values()):
        with open_file(folder / shard) as file:
            for tensor, info in read_header(file)[0].items():
                if tensor in tensors:
                    raise UserError(f"{folder}: {tensor!r} is in {tensors[tensor].file.name} and in {shard}")
                tensors[tensor] = info
    for tensor, shard in weight_map.items():
        if tensor not in tensors or tensors[tensor].file != folder / shard:
            raise UserError(f"{folder / name}: {tensor!r} should be in {shard}, but is not")
    return Weights(tensors=tensors, metadata=metadata, path=path or folder, folder=folder, open_file=open_file)


def _read_index(path: Path, open_file: OpenFile) -> tuple[dict[str, str], dict[str, str]]:
    with open_file(path) as file:
        data = parse_object(read_whole(file), str(path))
    weight_map, metadata = data.get("weight_map"), data.get("metadata", {})
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{path}: expected a weight_map from tensors to files")
    for tensor, shard in weight_map.items():
        if not tensor.isprintable() or not _is_inner_name(shard):
            raise UserError(
                f"{path}: {tensor[:200]!r} is said to be in {brief(shard)}, which is no file of this folder"
            )
    stated = metadata if isinstance(metadata, dict) else {}
    return weight_map, {key: str(value) for key, value in stated.items() if isinstance(value, str | int)}


def _is_inner_name(name: Any) -> bool:
    if not isinstance(name, str) or not name.isprintable() or "\\" in name:
        return False
    path = PurePosixPath(name)
    return name.endswith(SUFFIX) and not path.is_absolute() and ".." not in path.parts


def opener(folder: Path) -> OpenFile:
    """Opens files of a folder, and refuses links that lead out of it."""
    root = os.path.realpath(folder)
    allowed = [root]
    snapshots = next((each for each in Path(root).parents if each.name == "snapshots"), None)
    if snapshots is not None:  # a cache of the hub; `blobs` itself must be no link
        allowed.append(str(snapshots.parent / "blobs"))

    def open_file(path: Path) -> RegularFile:
        target = os.path.realpath(path)
        if not any(os.path.commonpath([target, each]) == each for each in allowed):
            raise UserError(
                f"{path} is a link that leads out of its folder, to {target}; copy the file into the folder, "
                "or name the file itself"
            )
        return RegularFile(path)

    return open_file
