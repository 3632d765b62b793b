"""The model card: what a folder holds, how it was made, and what it is not."""

import math
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from spikeless.nn.transformer import Transformer
from spikeless.pretrained.describe import family_of
from spikeless.report import RunRecord

__all__ = ["model_card"]


def model_card(record: RunRecord, step: int, data_hash: str, plain: Transformer, dtype: str, name: str) -> str:
    """README.md for a Hugging Face folder, with the YAML head that the hub reads.

    Args:
        record: the run.
        step: of the checkpoint [optimizer steps].
        data_hash: identifies the run's tokens.
        plain: the exported model.
        dtype: of the stored weights.
        name: of the folder.
    """
    steps, losses = record.series("val_loss")
    seen = steps <= step
    val_loss = float(losses[seen][-1]) if seen.any() else None
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["public"] = _without_machine_paths
    return environment.get_template("card.md.jinja").render(
        record=record,
        config=record.config,
        environment=record.environment,
        step=step,
        tokens=step * record.config["data"]["batch_size"] * record.config["data"]["sequence_length"],
        val_loss=val_loss,
        val_step=int(steps[seen][-1]) if seen.any() else None,
        perplexity=None if val_loss is None or not math.isfinite(val_loss) else math.exp(min(val_loss, 700.0)),
        data_hash=data_hash,
        architecture=family_of(plain.config.family, "export").architecture,
        parameters=sum(each.numel() for each in plain.parameters()),
        model=plain.config,
        dtype=dtype,
        name=name,
    )


def _without_machine_paths(value: object) -> str:
    """A value with the folders of absolute paths left out, and nothing that ends a cell of a table."""
    text = re.sub(r"(?<![\w.*…])(?:~|[A-Za-z]:)?[/\\](?:[^/\\,+]+[/\\])*", "…/", str(value))
    return text.replace("|", "\\|").replace("\n", " ")
