"""Write a model as a Hugging Face folder that plain `transformers` loads."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from torch import Tensor

from spikeless.data import Tokenizer
from spikeless.data.tokenizers import CONFIG, DEFINITION
from spikeless.errors import UserError, nearest
from spikeless.files import read_json, write_json
from spikeless.nn.transformer import Transformer
from spikeless.pretrained.describe import describe, family_of

__all__ = ["DTypeName", "as_dtype", "write_pretrained"]

DTypeName = Literal["fp32", "bf16", "fp16"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def as_dtype(name: str) -> torch.dtype:
    """The type that weights are stored in.

    Raises:
        UserError: not one of `DTypeName`.
    """
    if name not in get_args(DTypeName):
        raise UserError(f"--dtype {name!r} is unknown; {nearest(name, get_args(DTypeName), 'dtype')}")
    return _DTYPES[name]


def check_shard_size(text: str) -> None:
    """Refuse what is no size in bytes.

    Raises:
        UserError: not a number and a unit.
    """
    size = re.fullmatch(r"(\d+(?:\.\d+)?)[KMGT]B", text, re.IGNORECASE)
    if not size or not float(size[1]):
        raise UserError(f"--max-shard-size {text!r} is no size; write a number and a unit, such as 5GB or 500MB")


def write_pretrained(
    plain: Transformer, tokenizer: Tokenizer, folder: Path, *, dtype: torch.dtype, max_shard_size: str = "5GB"
) -> None:
    """Write config.json, generation_config.json, safetensors and the tokenizer into an existing folder.

    Args:
        plain: a model of plain parts, such as `fold` makes.
        tokenizer: goes with it.
        folder: to be filled.
        dtype: of the stored weights.
        max_shard_size: such as "5GB"; a larger tensor has a file of its own.

    Raises:
        UserError: a part that the family's class cannot express, a weight that is not finite or is not in that type,
            or something that is no size.
    """
    check_shard_size(max_shard_size)
    config = describe(plain.config)
    state = family_of(plain.config.family, "export").to_hugging_face(plain.state_dict(), plain.config)
    if plain.config.tied:
        del state["lm_head.weight"]
    _write_weights({name: _stored(name, each, dtype) for name, each in state.items()}, folder, max_shard_size)
    ids = _write_tokenizer(tokenizer, folder, plain.config.context_length, plain.output_weight.shape[0])
    type_name = str(dtype).removeprefix("torch.")
    write_json(folder / "config.json", config | ids | {"dtype": type_name, "torch_dtype": type_name, "use_cache": True})
    write_json(folder / "generation_config.json", ids | {"pad_token_id": ids.get("pad_token_id", ids["eos_token_id"])})


def _stored(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if not tensor.isfinite().all():
        raise UserError(f"the weight {name} is not finite; export a checkpoint from before the run broke")
    stored = tensor.detach().cpu().to(dtype)
    if not stored.isfinite().all():
        largest = tensor.abs().max().item()
        raise UserError(f"the weight {name} reaches {largest:.3g}, which {dtype} cannot hold; use --dtype bf16 or fp32")
    return stored.contiguous()


def _write_weights(state: dict[str, Tensor], folder: Path, max_shard_size: str) -> None:
    from huggingface_hub import save_torch_state_dict

    try:
        save_torch_state_dict(state, folder, max_shard_size=max_shard_size)
    except SafetensorError as error:
        raise UserError(f"cannot write the weights: {error}") from error


def _write_tokenizer(tokenizer: Tokenizer, folder: Path, context_length: int, rows: int) -> dict[str, int]:
    """Write a tokenizer that puts before a text what training put there, and nothing else; the ids of its tokens.

    Readers that begin with a "bos" token begin as training did: with the end-of-text of the document before, if
    documents began with nothing of their own.
    """
    tokenizer.save(folder)
    definition, config = read_json(folder / DEFINITION), read_json(folder / CONFIG)
    beginning = tokenizer.reading.beginning
    del config["spikeless"]  # a spec may name a folder
    if tokenizer.added_around != (beginning, ()) or definition.get("truncation") or definition.get("padding"):
        tokens = [(str(tokenizer.id_to_token(each)), each) for each in beginning]
        write_json(folder / DEFINITION, definition | _added_nothing_but(tokens) | {"truncation": None, "padding": None})
    ids = {"bos": (*beginning, tokenizer.end_of_text)[len(beginning) - 1], "eos": tokenizer.end_of_text}
    named = {"bos": tokenizer.special_token("bos"), "pad": tokenizer.special_token("pad")}
    if named["pad"] is not None:
        ids["pad"] = named["pad"] if named["pad"] < rows else tokenizer.end_of_text
    if "bos_token" in str(config.get("chat_template")) or (named["bos"] is None and not beginning):
        named["bos"] = ids["bos"]  # nothing to set right
    config |= {f"{kind}_token": tokenizer.id_to_token(ids[kind]) for kind in named if named[kind] != ids.get(kind)}
    config |= {"split_special_tokens": tokenizer.reading.special_tokens == "text" and "chat_template" not in config}
    write_json(folder / CONFIG, config | {"model_max_length": context_length})
    return {f"{kind}_token_id": number for kind, number in ids.items()}


def _added_nothing_but(tokens: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """The post-processor that puts these tokens before every text."""
    if not tokens:
        return {"post_processor": None}

    def around(sequence: str, type_id: int) -> list[dict[str, Any]]:
        before = [{"SpecialToken": {"id": token, "type_id": type_id}} for token, _ in tokens]
        return [*before, {"Sequence": {"id": sequence, "type_id": type_id}}]

    template = {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": [*around("A", 0), *around("B", 1)],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]} for token, number in tokens},
    }
    return {"post_processor": template}
