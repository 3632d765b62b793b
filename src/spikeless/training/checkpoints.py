"""Checkpoints: written aside, flushed, published by rename, and hashed, so that a broken one is never used.

A checkpoint is a folder `step-00000100` with `model.safetensors`, `training.safetensors`, `state.json` and
`manifest.json`, which holds the SHA-256 of the others. Nothing in it is ever unpickled.
"""

import json
import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from spikeless.errors import SpikelessWarning, UserError
from spikeless.files import aside, read_json, sha256, write_json, write_text

__all__ = ["MANIFEST", "Checkpoint", "Checkpoints", "CorruptCheckpoint", "is_checkpoint", "read_checkpoint"]

NAME = r"step-(\d{8,})"
MANIFEST = "manifest.json"
PARTS = ("model.safetensors", "training.safetensors", "state.json")


class CorruptCheckpoint(UserError):
    """A checkpoint with a missing or altered file."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a resume needs.

    Attributes:
        step: optimizer steps done.
        model: tensors by parameter name.
        training: tensors of the optimizer ("optimizer/PARAMETER/KEY") and of random generators ("rng/DEVICE").
        state: whatever else, JSON.
    """

    step: int
    model: dict[str, Tensor]
    training: dict[str, Tensor]
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, run_folder: Path) -> None:
        self.folder = run_folder / "checkpoints"

    def steps(self) -> list[int]:
        """Steps of the published checkpoints, ascending."""
        if not self.folder.is_dir():
            return []
        names = (re.fullmatch(NAME, path.name) for path in self.folder.iterdir())
        return sorted(int(name.group(1)) for name in names if name)

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is published."""
        return self.folder / f"step-{step:08d}"

    def save(self, checkpoint: Checkpoint) -> None:
        """Publish a checkpoint, then let `latest` name it.

        Raises:
            UserError: full disk or unwritable folder; earlier checkpoints are untouched.
        """
        final = self.path(checkpoint.step)
        try:
            with aside(final) as folder:
                save_file(checkpoint.model, folder / PARTS[0])
                save_file(checkpoint.training, folder / PARTS[1])
                write_json(folder / PARTS[2], {"step": checkpoint.step, **checkpoint.state})
                write_json(folder / MANIFEST, {"sha256": {name: sha256(folder / name) for name in PARTS}})
        except SafetensorError as error:
            raise UserError(f"cannot write {final}: {error}") from error
        write_text(self.folder / "latest", final.name + "\n")

    def newest(self) -> Checkpoint | None:
        """The newest whole checkpoint, or None if there is none yet; broken ones are passed over.

        Raises:
            UserError: there are checkpoints, and none of them is whole.

        Warns:
            SpikelessWarning: for every broken one.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return read_checkpoint(self.path(step))
            except CorruptCheckpoint as error:
                older = "using the one before it" if step != steps[0] else "and there is none before it"
                warnings.warn(f"{error}; {older}", SpikelessWarning, stacklevel=2)
        if steps:
            raise UserError(f"none of the checkpoints in {self.folder} is whole; start again elsewhere")
        return None

    def adopt(self, checkpoint: Path) -> None:
        """Publish another run's checkpoint here too, as the first; no bytes are copied where the disk is the same.

        Raises:
            UserError: there are other checkpoints here already; full disk or unwritable folder.
        """
        final = self.folder / checkpoint.name
        there = [self.path(step) for step in self.steps()]
        if there == [final] and sha256(final / MANIFEST) == sha256(checkpoint / MANIFEST):
            return  # a kill came between this and what follows
        if there:
            raise UserError(f"{self.folder} holds checkpoints of a run that is gone; choose another --out")
        with aside(final) as folder:
            for name in (*PARTS, MANIFEST):
                _link_or_copy(checkpoint / name, folder / name)

    def discard_after(self, step: int) -> None:
        """Remove checkpoints beyond a step, broken ones that a resume has passed over; `latest` names the step's."""
        for each in self.steps():
            if each > step:
                self._remove(each)
        write_text(self.folder / "latest", self.path(step).name + "\n")

    def prune(self, keep_last: int, keep_best: int) -> None:
        """Remove all but the newest and the best by validation loss, and what crashes left behind."""
        steps = self.steps()
        losses = {step: loss for step in steps if (loss := self._val_loss(step)) is not None}
        best = sorted(losses, key=lambda step: (losses[step], step))[:keep_best]
        for step in steps:
            if step not in steps[-keep_last:] and step not in best:
                self._remove(step)
        for left in self.folder.glob(".step-*.tmp"):
            shutil.rmtree(left, ignore_errors=True)

    def _remove(self, step: int) -> None:
        """Unpublish first, so that a kill in between leaves no half checkpoint under a published name."""
        hidden = self.folder / f".{self.path(step).name}.old.tmp"
        shutil.rmtree(hidden, ignore_errors=True)
        self.path(step).rename(hidden)
        shutil.rmtree(hidden)

    def _val_loss(self, step: int) -> float | None:
        try:
            return read_json(self.path(step) / "state.json").get("val_loss")
        except UserError:  # a broken one is no candidate for the best
            return None


def is_checkpoint(path: Path) -> bool:
    """True if a path is one checkpoint of a run folder, by its names."""
    return path.parent.name == "checkpoints" and re.fullmatch(NAME, path.name) is not None


def _link_or_copy(source: Path, target: Path) -> None:
    """Published files are never written to, so two runs can share them."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read one checkpoint, its hashes checked first.

    Raises:
        CorruptCheckpoint: a file is missing or is not what was written.
        UserError: a file cannot be read now, which says nothing of what is in it.
    """
    try:
        _check_hashes(folder)
        state = read_json(folder / PARTS[2])
        return Checkpoint(
            step=state.pop("step"),
            model=load_file(folder / PARTS[0]),
            training=load_file(folder / PARTS[1]),
            state=state,
        )
    except CorruptCheckpoint:
        raise
    except (OSError, UserError, KeyError, SafetensorError) as error:
        raise UserError(f"cannot read {folder}: {error}; nothing was changed, try again once it can be read") from error


def _check_hashes(folder: Path) -> None:
    """Stop if a checkpoint is not what was written.

    Raises:
        CorruptCheckpoint: it is not.
        OSError: a file is there and cannot be read.
    """
    try:
        recorded = json.loads((folder / MANIFEST).read_bytes())["sha256"]
        wrong = [folder / name for name in PARTS if sha256(folder / name) != recorded[name]]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError) as error:
        raise CorruptCheckpoint(f"{folder} is incomplete: {error}") from None
    if wrong:
        raise CorruptCheckpoint(f"{wrong[0]} is corrupted: its hash is not the one recorded")
