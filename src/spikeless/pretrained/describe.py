"""config.json: what a model of plain parts is called at Hugging Face, and whether it can be said at all."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spikeless.config import diff, find, names_in
from spikeless.errors import UserError
from spikeless.models import Family, Fields
from spikeless.nn.ffn import MLP, GatedMLP, inner_width
from spikeless.nn.transformer import ModelConfig

__all__ = ["describe", "family_of", "read_description"]

HARMLESS = (
    *(
        "_name_or_path",
        "_num_labels",
        "architectures",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "torchscript",
        "use_bfloat16",
    ),
    *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id", "tokenizer_class"),
    *("initializer_range", "use_cache", "return_dict", "use_return_dict", "output_attentions", "output_hidden_states"),
    *(
        "id2label",
        "label2id",
        "num_labels",
        "output_past",
        "predict_special_tokens",
        "problem_type",
        "finetuning_task",
        "task_specific_params",
        "prefix",
    ),
    *("attn_implementation", "_attn_implementation", "_attn_implementation_autoset", "tf_legacy_loss", "is_decoder"),
    # fields of generation that older versions keep here
    *("max_length", "max_new_tokens", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups"),
    *("diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty"),
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences"),
    *("output_scores", "return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens"),
    *("begin_suppress_tokens", "remove_invalid_values", "exponential_decay_length_penalty", "max_sequence_length"),
)
"""Fields of any family's config.json that do not change what the model computes from token ids."""


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
    fields.require("quantization_config", why="quantised weights; dequantise them first")
    fields.ignore(HARMLESS)
    config = family.from_hugging_face_config(fields)
    fields.finish()
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
