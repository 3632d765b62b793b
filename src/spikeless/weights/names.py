"""Names of tensors as the model itself has them, and names that share one tensor."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from spikeless.errors import UserError
from spikeless.weights.header import TensorInfo

__all__ = ["common_wrappers", "with_aliases", "without_wrappers"]

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""Parts of names that `torch.compile`, FSDP, checkpointing and Lightning put in, at any depth."""
AROUND = "module."
"""What `DataParallel` and its kin put before every name."""


def without_wrappers(tensors: Mapping[str, TensorInfo], where: str) -> dict[str, TensorInfo]:
    """The tensors under the names that they have in a model that nothing wraps.

    Raises:
        UserError: two tensors get one name.
    """
    names = {stored: ".".join(part for part in stored.split(".") if part not in WRAPPERS) for stored in tensors}
    while names and all(name.startswith(AROUND) for name in names.values()):
        names = {stored: name.removeprefix(AROUND) for stored, name in names.items()}
    plain: dict[str, TensorInfo] = {}
    origin: dict[str, str] = {}
    for stored, name in names.items():
        if name in plain:
            raise UserError(f"{where}: {origin[name]} and {stored} are the same weight; store it once")
        origin[name], plain[name] = stored, replace(tensors[stored], name=name)
    return plain


def with_aliases(tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> dict[str, TensorInfo]:
    """The tensors of a file, and the names that `safetensors.torch.save_model` left to its metadata.

    Of tensors that share memory that function writes one, and notes under each other name which one it is.
    """
    shared = {
        name: replace(tensors[kept], name=name)
        for name, kept in metadata.items()
        if kept in tensors and name not in tensors and "." in name
    }
    return {**tensors, **shared}


def common_wrappers(names: Iterable[str]) -> list[str]:
    """What all names begin with, part by part: "", "model.", "model.inner.", …, without their last part."""
    split = [name.split(".")[:-1] for name in names]
    found = [""]
    for level in zip(*split, strict=False):
        if len(set(level)) > 1:
            break
        found.append(f"{found[-1]}{level[0]}.")
    return found
