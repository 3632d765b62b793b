"""Models of `transformers` that are none of ours: local safetensors or a configuration, never code from the folder."""

from pathlib import Path
from typing import Any

import torch

from spikeless.errors import UserError
from spikeless.weights import open_weights

__all__ = ["context_length_of", "foreign_from_config", "load_foreign"]


def load_foreign(folder: Path, dtype: torch.dtype, why: str) -> Any:
    """The causal language model of a Hugging Face folder.

    Args:
        folder: with config.json and safetensors.
        dtype: to compute in.
        why: it is none of ours; ends the message.

    Raises:
        UserError: transformers is missing or cannot load it, or weights are missing.
    """
    auto = _auto_model(why)
    local = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    open_weights(folder)  # refuses pickles, and what leads out of the folder
    try:
        model, report = auto.from_pretrained(folder, dtype=dtype, output_loading_info=True, **local)
    except Exception as error:  # the library's classes raise what they like
        raise UserError(f"{folder}: transformers cannot load this model either: {_first_line(error)} ({why})") from None
    strange = sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in report[kind])
    if strange:
        raise UserError(f"{folder}: the weight {strange[0]} is missing or has another shape than config.json says")
    return model.eval()


def foreign_from_config(folder: Path, why: str) -> Any:
    """A freshly initialised model of the config.json in a folder, on the current default device.

    Raises:
        UserError: transformers is missing, or has no causal language model of this kind.
    """
    auto = _auto_model(why)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return auto.from_config(config).eval()
    except Exception as error:  # as above
        raise UserError(f"{folder}: transformers cannot build it either: {_first_line(error)} ({why})") from None


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
