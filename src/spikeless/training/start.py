"""The first weights of a run that begins from a Hugging Face folder."""

from pathlib import Path
from typing import Any

from spikeless.config import to_dict
from spikeless.errors import UserError
from spikeless.nn.transformer import Transformer
from spikeless.pretrained.read import read_pretrained, weights_hash

__all__ = ["load_start"]


def load_start(model: Transformer, folder: str) -> dict[str, Any]:
    """Give a model the weights of a folder; what run.json records of it: folder, weights' hash, model.

    Raises:
        UserError: no such folder, a damaged one, or one with another model.
    """
    read = read_pretrained(Path(folder))
    try:
        model.load_state_dict(read.state)
    except RuntimeError as error:
        raise UserError(f"the weights of {folder} are not those of this model: {error}") from None
    return {"folder": folder, "weights": weights_hash(read.state), "model": to_dict(read.config)}
