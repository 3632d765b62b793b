"""config.json: what a model of plain parts is called at Hugging Face, and whether it can be said at all."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spikeless.config import diff, find, names_in
from spikeless.errors import UserError
from spikeless.models import Family, Fields
from spikeless.nn.ffn import MLP, GatedMLP, inner_width
from spikeless.nn.transformer import ModelConfig
from spikeless.pretrained.harmless import is_harmless, own_code

__all__ = ["describe", "family_of", "read_description"]


def family_of(model_type: Any, where: str) -> type[Family]:
    """The family that a config.json calls `model_type`.

    Raises:
        UserError: we have none of that name, or it cannot be read and written.
    """
    known = [name for name in names_in("models") if hasattr(find("models", name), "from_hugging_face_config")]
    if model_type not in known:
        raise UserError(f"{where}: model_type {model_type!r} is not supported; {' and '.join(known)} are")
    return find("models", model_type)


def read_description(data: Mapping[str, Any], where: str) -> ModelConfig:
    """The model that a config.json describes.

    Raises:
        UserError: one that we do not have: a family, a field or a value, by name.
    """
    fields = Fields(data, where)
    family = family_of(fields.take("model_type", str, ""), where)
    for name in ("quantization_config", "quantization", "compression_config"):
        fields.require(name, {}, why="quantised weights; dequantise them first")
    code = own_code(fields.take("auto_map", dict, {}), data["model_type"])
    if code is not None:
        raise UserError(
            f"{where}: auto_map names {code}, code that is not run and may compute something else than "
            f"{data['model_type']}; if it does not, remove auto_map from the file"
        )
    config = family.from_hugging_face_config(fields)
    fields.finish(is_harmless)
    config.check()
    return config


def describe(config: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of plain parts.

    A part that the family's class cannot express is found by reading the description back: what does not come back
    is named. So a new part of any kind is refused until the family's file knows it.

    Raises:
        UserError: naming what cannot be expressed.
    """
    family = family_of(config.family, "export")
    data = {"architectures": [family.architecture], "model_type": config.family, **family.hugging_face_config(config)}
    lost = diff(_written_out(config), _written_out(read_description(data, "export")))
    if lost:
        raise UserError(
            f"{family.architecture} of transformers cannot express model.{lost[0].path} = {lost[0].old!r} "
            f"(it has {lost[0].new!r}), so this model cannot be exported without custom code"
        )
    return data


def _written_out(config: ModelConfig) -> ModelConfig:
    """Sizes that were left to a default written out."""
    ffn = config.ffn
    if isinstance(ffn, MLP | GatedMLP):
        ffn = replace(ffn, width=inner_width(ffn, config.width))
    return replace(config, num_kv_heads=config.kv_heads, ffn=ffn)
