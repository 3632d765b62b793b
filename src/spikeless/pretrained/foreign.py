"""Models of `transformers` that are none of ours: local safetensors or a configuration, never code from the folder."""

import inspect
import warnings
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as brief
from typing import Any

import torch

from spikeless.config import names_in
from spikeless.errors import SpikelessWarning, UserError
from spikeless.files import read_json
from spikeless.pretrained.harmless import is_harmless
from spikeless.pretrained.match import check_tied, is_buffer, tied_names, unwrapped
from spikeless.pretrained.quiet import quiet
from spikeless.weights import Weights, open_weights

__all__ = ["context_length_of", "foreign_from_config", "load_foreign"]

STORED = ("F32", "BF16", "F16", "F64")
_FAULTS = {
    "missing_keys": "is missing",
    "mismatched_keys": "has another shape than config.json says",
    "unexpected_keys": "is in the file, but the model has none of that name; config.json and the weights do not fit",
}


def load_foreign(folder: Path, dtype: torch.dtype, why: str) -> Any:
    """The causal language model of a Hugging Face folder, with the weights that our own reader finds there.

    Args:
        folder: with config.json and safetensors.
        dtype: to compute in.
        why: it is none of ours; ends the message.

    Raises:
        UserError: transformers is missing or cannot load it; weights are missing, unknown to the model, tied although
            they differ, or quantised without a word in config.json; a field that nobody knows.

    Warns:
        SpikelessWarning: fields of a family that is none of ours, which `transformers` does not know.
    """
    auto = _auto_model(why)
    weights = open_weights(folder)
    try:
        with torch.device("meta"):
            skeleton = _skeleton(auto, folder)
        renamed = _checked_names(weights, skeleton)
        model, fault = _load(skeleton, weights, {name: name for name in renamed}, dtype)
        if fault and any(name != plain for name, plain in renamed.items()):  # something wraps the model
            model, fault = _load(skeleton, weights, renamed, dtype)
    except UserError:
        raise
    except Exception as error:  # the library's classes raise what they like
        raise UserError(f"{folder}: transformers cannot load this model either: {_first_line(error)} ({why})") from None
    if fault:
        raise UserError(f"{folder}: the weight {fault}")
    _check_fields(folder, model.config)
    return model.eval()


def foreign_from_config(folder: Path, why: str) -> Any:
    """A freshly initialised model of the config.json in a folder, on the current default device.

    Raises:
        UserError: transformers is missing, or has no causal language model of this kind; a field that nobody knows.
    """
    auto = _auto_model(why)
    try:
        model = _skeleton(auto, folder).eval()
    except Exception as error:  # as above
        raise UserError(f"{folder}: transformers cannot build it either: {_first_line(error)} ({why})") from None
    _check_fields(folder, model.config)
    return model


def _skeleton(auto: Any, folder: Path) -> Any:
    from transformers import AutoConfig

    return auto.from_config(AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False))


def _checked_names(weights: Weights, skeleton: Any) -> dict[str, str]:
    """For each stored tensor the name that the model has for it, without what the model stores for no use.

    Raises:
        UserError: a weight is stored twice, ties of the configuration do not hold in the file, or it is quantised and
            config.json does not say how.
    """
    named = list(skeleton.named_parameters(remove_duplicate=False))
    wanted = {*skeleton.state_dict(), *(name for name, _ in named)}
    names = unwrapped(weights.tensors, wanted, f"{skeleton.base_model_prefix}.", str(weights.folder))
    check_tied(weights, {plain: name for name, plain in names.items()}, tied_names(named))
    if not getattr(skeleton.config, "quantization_config", None):
        for name, info in weights.tensors.items():
            if info.dtype not in STORED and names[name] in wanted:
                raise UserError(
                    f"{weights.folder}: the weight {name} is stored as {info.dtype}, but config.json has no "
                    f"quantization_config; {', '.join(STORED)} can be read"
                )
    return {name: plain for name, plain in names.items() if plain in wanted or not is_buffer(weights.tensors[name])}


def _load(skeleton: Any, weights: Weights, names: Mapping[str, str], dtype: torch.dtype) -> tuple[Any, str]:
    """A model with the stored tensors under these names, and what is wrong with one of them; "" if nothing is."""
    with quiet():
        model, report = type(skeleton).from_pretrained(
            None,
            config=skeleton.config,
            state_dict={plain: weights.read(name) for name, plain in names.items()},
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are named below
        )
    for kind, fault in _FAULTS.items():
        strange = sorted(each if isinstance(each, str) else each[0] for each in report[kind])
        if strange:
            return model, f"{strange[0]}{f' (and {len(strange) - 1} more)' if strange[1:] else ''} {fault}"
    untied = getattr(skeleton, "all_tied_weights_keys", {}).keys() - getattr(model, "all_tied_weights_keys", {}).keys()
    return model, f"{min(untied)} is tied by config.json to one that is stored with other numbers" if untied else ""


def _known_fields(config: Any) -> set[str]:
    """What a configuration's class takes, sets by itself, or reads under another name."""
    from transformers import PretrainedConfig

    try:
        plain = type(config)()
    except Exception:  # some cannot be built from their defaults
        plain = PretrainedConfig()
    taken = {
        *inspect.signature(type(config).__init__).parameters,
        *config.attribute_map,
        *dir(type(config)),
        *vars(plain),
    }
    return taken | {"model_type", "auto_map", "rope_theta", "rope_scaling", "quantization_config", "per_layer_config"}


def _check_fields(folder: Path, config: Any) -> None:
    """Say which fields of config.json `transformers` passes over.

    Raises:
        UserError: there are some in a family of ours, whose fields are all known.

    Warns:
        SpikelessWarning: there are some in another family.
    """
    path, known = folder / "config.json", _known_fields(config)
    data = read_json(path)
    strange = [name for name, value in data.items() if name not in known and not is_harmless(name, value)]
    if not strange:
        return
    listed = ", ".join(f"{name} = {brief(data[name])}" for name in strange[:3]) + (", …" if strange[3:] else "")
    if data.get("model_type") in names_in("models"):
        raise UserError(
            f"{path}: {listed} is known neither to us nor to transformers, so it may change what the model computes; "
            "if it does not, remove it from the file"
        )
    warnings.warn(f"{path}: transformers does not know {listed}, and computes without", SpikelessWarning, 3)


def context_length_of(model: Any) -> int | None:
    """Most tokens that a model takes at once; None if its configuration does not say."""
    text = model.config.get_text_config()
    lengths = [getattr(text, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len")]
    return next((each for each in lengths if isinstance(each, int) and each > 0), None)


def _auto_model(why: str) -> Any:
    try:
        from transformers import AutoModelForCausalLM
    except ImportError:
        raise UserError(f"{why}; others need transformers: pip install transformers") from None
    return AutoModelForCausalLM


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
