"""From what a user names to checkpoints: Hugging Face folders, files, our runs, a run's checkpoints, hub names."""

import contextlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikeless.data.tokenizers import vocabulary_of
from spikeless.errors import UserError
from spikeless.evaluation.tev.entry import Entry, hugging_face_entry, our_entry
from spikeless.evaluation.tev.families import TIED
from spikeless.evaluation.tev.layout import is_tied, text_config
from spikeless.run import RunConfig
from spikeless.training.checkpoints import Checkpoints
from spikeless.training.trained import read_description
from spikeless.weights import TensorInfo, Weights, open_weights
from spikeless.weights.hub import is_hub_name, open_hub

__all__ = ["Source", "find_sources"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A checkpoint whose headers have been read.

    Attributes:
        label: as the user named it.
        weights: its tensors.
        config: the text part of its `config.json`; empty if there is none.
        wrapper: the `model_type` of the multimodal model around that part, if there is one.
        step: the training step, for a checkpoint of ours.
        run: the configuration that it was trained with, for a checkpoint of ours; what stands in for it says why not.
    """

    label: str
    weights: Weights
    config: Mapping[str, Any] = field(default_factory=dict)
    wrapper: str | None = None
    step: int | None = None
    run: RunConfig | UserError | None = None

    def entry(self, table: TensorInfo) -> Entry:
        """What a row of its table goes through on its way into the residual stream."""
        if isinstance(self.run, RunConfig):
            return our_entry(self.run.model.embedding, self.weights)
        if self.run is not None:
            return Entry(description="unknown: a part from outside the package", known=False)
        return hugging_face_entry(table, self.config, self.wrapper, self.weights)

    def tied(self, table: TensorInfo) -> bool | None:
        """Whether its head is that table; None if that cannot be told."""
        return self.run.model.tied if isinstance(self.run, RunConfig) else is_tied(self.weights, table, self.config)

    def ties(self) -> bool:
        """Whether its configuration, or its family where that does not say, ties the head to the table."""
        if self.run is not None:
            return False
        stated = self.config.get("tie_word_embeddings")
        return self.config.get("model_type") in TIED if stated is None else stated is True

    def vocabulary(self) -> int | None:
        """Ids of the tokenizer beside it, or those of its configuration."""
        if isinstance(self.run, RunConfig):
            return self.run.model.vocab_size
        definition = self.weights.json("tokenizer.json")
        with contextlib.suppress(UserError):  # a damaged one tells nothing; its table can be read all the same
            if definition:
                return max(vocabulary_of(definition, f"of {self.label}").values(), default=-1) + 1
        stated = self.config.get("vocab_size")
        return stated if isinstance(stated, int) else None


def find_sources(name: str, trusted: Collection[str] = ()) -> list[Source]:
    """The checkpoints that a path or a hub name stands for: all those of a run folder, otherwise one.

    Args:
        name: the path or the hub name.
        trusted: modules outside the package whose parts the description of a run may name.

    Raises:
        UserError: it stands for none, or what is there cannot be read.
    """
    path = Path(name)
    if (path / "run.json").is_file():
        return _checkpoints_of(path, name, trusted)
    if (path / "state.json").is_file() and (path.resolve().parents[1] / "run.json").is_file():
        return [_our_checkpoint(path, path.resolve().parents[1], name, trusted)]
    if not path.exists() and not path.is_symlink() and is_hub_name(name):
        weights = open_hub(name)
    else:
        weights = open_weights(path)
    config = weights.json("config.json") or {}
    text = text_config(config)
    wrapper = None if text == config else str(config.get("model_type"))
    return [Source(label=name, weights=weights, config=text, wrapper=wrapper)]


def _checkpoints_of(run_folder: Path, name: str, trusted: Collection[str]) -> list[Source]:
    checkpoints = Checkpoints(run_folder)
    steps = checkpoints.steps()
    if not steps:
        raise UserError(f"{name} is a run without checkpoints yet")
    return [_our_checkpoint(checkpoints.path(step), run_folder, name, trusted) for step in steps]


def _our_checkpoint(folder: Path, run_folder: Path, name: str, trusted: Collection[str]) -> Source:
    step = re.fullmatch(r"step-(\d+)", folder.name)
    try:
        run, _ = read_description(run_folder, trusted)
    except UserError as error:  # a part from outside the package: raw TEV needs none of it
        run = error
    return Source(
        label=name,
        weights=open_weights(folder / "model.safetensors"),
        step=int(step.group(1)) if step else None,
        run=run,
    )
