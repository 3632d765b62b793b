"""From a path to the tensors below it: one file, a folder with one, or a folder with shards and their index."""

import os
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from reprlib import repr as brief
from typing import Any

from spikeless.errors import SpikelessWarning, UserError
from spikeless.weights.header import TensorInfo, read_header
from spikeless.weights.names import with_aliases, without_wrappers
from spikeless.weights.reader import OpenFile, Weights, read_whole
from spikeless.weights.regular import RegularFile
from spikeless.weights.strict_json import parse_object

__all__ = [
    "INDEX_SUFFIX",
    "OTHERS",
    "PICKLES",
    "SINGLE",
    "SUFFIX",
    "WAY_OUT",
    "assemble",
    "open_weights",
    "refuse_adapter",
    "weights_file",
]

SUFFIX, INDEX_SUFFIX = ".safetensors", ".safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTER = "adapter_config.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
NO_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|rng_state|scaler|random_states)\b|rng_state_\d")
"""Files beside a model's weights that are kept to resume its training."""
SHARD = re.compile(r".*-\d+-of-\d+\.safetensors")
OTHERS = {  # what is told apart only to say what would be right
    ".gguf": "is GGUF, which is not read; give the model's safetensors, or convert it: "
    "`AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file=FILE).save_pretrained(NEW_FOLDER)` of transformers",
    ".distcp": "is a distributed checkpoint of torch, which is not read; convert it once, in a place you trust: "
    "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt`",
}
WAY_OUT = (
    "it is a pickle, which can run code as it is read, so it is refused; convert it once, in a place you trust: "
    "`AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)` of transformers, or "
    "`d = torch.load({name!r}, weights_only=True); d = d.get('model', d.get('state_dict', d)); "
    "safetensors.torch.save_file({{k: v.clone() for k, v in d.items()}}, 'model.safetensors')`"
)


def open_weights(path: Path | str) -> Weights:
    """The tensors of a `.safetensors` file, of an index file with its shards, or of a folder with either.

    Only headers are read. A file of a folder may be a link, if it stays inside the folder or, in a cache of the
    Hugging Face hub, leads from `snapshots/` to the `blobs/` of the same repository. A file that is named itself may
    lead anywhere. Names are those of the bare model: what wrapped it when it was saved is left out.

    Raises:
        UserError: nothing of the kind is there, or what is there contradicts itself.

    Warns:
        SpikelessWarning: the folder has other safetensors, which are not read.
    """
    path = Path(path)
    if not path.is_dir():
        _refuse_other_kinds(path.parent, [path.name] if path.exists() else [])
        if path.name.endswith(INDEX_SUFFIX):
            return assemble(path.parent, path.name, opener(path.parent), path)
        return assemble(path.parent, path.name, RegularFile, path)
    try:
        names = sorted(each.name for each in path.iterdir())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    refuse_adapter(path)
    weights = assemble(path, weights_file(path, names, opener(path)), opener(path))
    read = {info.file.name for info in weights.tensors.values()}
    unread = [name for name in names if name.endswith(SUFFIX) and name not in read and not NO_WEIGHTS.match(name)]
    if unread:
        warnings.warn(
            f"{path}: {_listed(sorted(read))} {'is' if len(read) == 1 else 'are'} read; {_listed(unread)} not",
            SpikelessWarning,
            2,
        )
    return weights


def weights_file(folder: Path, names: Sequence[str], open_file: OpenFile) -> str:
    """Which of a folder's files holds its weights, or the index of them.

    Raises:
        UserError: none, or several that might.
    """
    indices = [name for name in names if name.endswith(INDEX_SUFFIX)]
    usual = f"model{INDEX_SUFFIX}"
    if usual in indices:
        if SINGLE in names and SINGLE not in _read_index(folder / usual, open_file)[0].values():
            raise UserError(
                f"{folder} has both {SINGLE} and {usual}, which names other files; one of the two models is stale, "
                "and other programs would take the first without a word; remove the one that is not meant"
            )
        return usual
    if SINGLE in names:
        return SINGLE
    files = [name for name in names if name.endswith(SUFFIX) and not NO_WEIGHTS.match(name)]
    candidates = indices or files
    if len(candidates) == 1:
        return candidates[0]
    if candidates and all(SHARD.fullmatch(name) for name in candidates):
        raise UserError(f"{folder} has the shards {_listed(candidates)}, but no {usual} that says what is in them")
    if candidates:
        raise UserError(f"{folder} has several: {_listed(candidates)}; name one of them")
    _refuse_other_kinds(folder, names)
    raise UserError(f"{folder} holds no .safetensors file")


def refuse_adapter(folder: Path) -> None:
    """Refuse a folder whose weights are none without those of another model.

    Raises:
        UserError: it has an adapter's configuration.
    """
    if (folder / ADAPTER).exists():
        raise UserError(
            f"{folder} holds an adapter ({ADAPTER}), which is only a change to another model; merge the two first: "
            "`PeftModel.from_pretrained(MODEL, FOLDER).merge_and_unload().save_pretrained(NEW_FOLDER)` of peft"
        )


def _refuse_other_kinds(folder: Path, names: Iterable[str]) -> None:
    """Name weights of a kind that is not read, and say how to get at them.

    Raises:
        UserError: there are some.
    """
    for name in sorted(names, key=lambda each: (bool(NO_WEIGHTS.match(each)), each)):
        suffix = Path(name).suffix
        if suffix in PICKLES:
            raise UserError(f"{folder / name}: {WAY_OUT.format(name=name)}")
        if suffix in OTHERS:
            raise UserError(f"{folder / name} {OTHERS[suffix]}")


def assemble(folder: Path, name: str, open_file: OpenFile, path: Path | None = None) -> Weights:
    """The tensors of one file of a folder, or of all the shards that an index file names.

    Where two shards hold one tensor the index decides; a tensor that it does not name is there all the same.

    Raises:
        UserError: an index that is malformed, leaves the folder, or does not agree with its shards.
    """
    if name.endswith(INDEX_SUFFIX):
        weight_map, metadata = _read_index(folder / name, open_file)
    else:
        weight_map, metadata = {}, None
    tensors: dict[str, TensorInfo] = {}
    for shard in dict.fromkeys(weight_map.values()) if weight_map else (name,):
        with open_file(folder / shard) as file:
            found, stated = read_header(file)
        metadata = stated if metadata is None else metadata
        for tensor, info in with_aliases(found, stated).items():
            if weight_map.get(tensor, shard) != shard:
                continue
            if tensor in tensors:
                raise UserError(
                    f"{folder}: {tensor!r} is in {tensors[tensor].file.name} and in {shard}, and {name} names neither"
                )
            tensors[tensor] = info
    for tensor, shard in weight_map.items():
        if tensor not in tensors:
            raise UserError(f"{folder / name}: {tensor!r} should be in {shard}, but is not")
    return Weights(
        tensors=without_wrappers(tensors, str(folder / name)),
        metadata=metadata or {},
        path=path or folder,
        folder=folder,
        open_file=open_file,
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


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
