"""A checkpoint of a run as a Hugging Face folder."""

from collections.abc import Collection
from pathlib import Path

from spikeless.errors import UserError
from spikeless.files import aside, read_json, write_text
from spikeless.pretrained.card import model_card
from spikeless.pretrained.fold import fold
from spikeless.pretrained.verify import Agreement, verify
from spikeless.pretrained.write import as_dtype, write_pretrained
from spikeless.report import read_run
from spikeless.training.trained import load_trained

__all__ = ["export"]


def export(
    path: Path, out: Path, *, dtype: str = "fp32", max_shard_size: str = "5GB", trusted: Collection[str] = ()
) -> Agreement:
    """Write a checkpoint as a folder that plain `transformers` loads; it appears when it has been verified.

    Args:
        path: a run folder (its newest checkpoint) or one checkpoint in it.
        out: the folder to make.
        dtype: "fp32", "bf16" or "fp16".
        max_shard_size: such as "5GB".
        trusted: modules outside the package whose parts the run's description may name.

    Returns:
        How far the written model's logits are from the trained model's.

    Raises:
        UserError: no such checkpoint, `out` exists, a part that cannot be exported, weights that are not finite or not
            in this type, a full disk, or a written model that computes something else. Nothing is left behind.
    """
    stored = as_dtype(dtype)
    if out.exists():
        raise UserError(f"{out} already exists; choose another --out")
    trained = load_trained(path, trusted=trusted)
    for name, weight in trained.model.named_parameters():
        if not weight.isfinite().all():
            raise UserError(f"{path}: the weight {name} is not finite; export an earlier checkpoint")
    plain = fold(trained.model)
    record, data_hash = read_run(trained.folder), read_json(trained.folder / "run.json", "data_hash")["data_hash"]
    with aside(out) as folder:
        write_pretrained(plain, trained.tokenizer, folder, dtype=stored, max_shard_size=max_shard_size)
        write_text(folder / "README.md", model_card(record, trained.step, data_hash, plain, dtype, out.name))
        return verify(folder, trained.model, plain, trained.tokenizer, stored)
