"""The checkpoint of a run from which another run, a branch of it, begins."""

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from spikeless.config import Change, diff, modules_of
from spikeless.data import PreparedData, prepare
from spikeless.errors import SpikelessWarning, UserError
from spikeless.files import sha256
from spikeless.run import RunConfig
from spikeless.training.build import build_model, fill_vocabulary
from spikeless.training.checkpoints import MANIFEST, Checkpoints, is_checkpoint, read_checkpoint
from spikeless.training.continuation import warn_of_a_jump
from spikeless.training.run_folder import RunFolder, as_rows

__all__ = ["Origin", "begin_branch", "parse_origin"]

ORDER = ("data_hash", "data.batch_size", "data.sequence_length", "seed")
"""What decides which tokens a step reads."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A checkpoint of a run.

    Attributes:
        folder: of the run.
        step: optimizer steps done; None for the newest.
    """

    folder: Path
    step: int | None = None

    def __str__(self) -> str:
        return str(self.folder) if self.step is None else f"{self.folder}@{self.step}"

    @property
    def run(self) -> RunFolder:
        """The run that it is of."""
        return RunFolder(self.folder)

    def found(self) -> "Origin":
        """The same with its step, which is there.

        Raises:
            UserError: no such run, or a step that was not kept.
        """
        if not self.run.exists:
            raise UserError(f"{self} names no run folder; write RUN@STEP, for example runs/first@100")
        kept = Checkpoints(self.folder).steps()
        if not kept:
            raise UserError(f"{self.folder} has no checkpoint yet, so no branch can begin there")
        if self.step is not None and self.step not in kept:
            raise UserError(
                f"{self.folder} has no checkpoint of step {self.step}; it has those of {', '.join(map(str, kept))}"
            )
        return replace(self, step=kept[-1]) if self.step is None else self

    def refuse_other(self, branch: RunFolder) -> None:
        """Stop unless a run that is resumed began here.

        Raises:
            UserError: it began elsewhere.
        """
        began = branch.origin
        if not began or self.step not in (None, began["step"]) or not self._is_origin(began):
            of = f"a branch of {began['folder']}@{began['step']}" if began else "no branch"
            raise UserError(
                f"{branch.path} is {of}, not one of {self}; leave out --branch-from to resume it, "
                "or choose another --out"
            )

    def _is_origin(self, began: Mapping[str, Any]) -> bool:
        """True if a branch recorded this run's checkpoint; if that is gone, the name of the folder has to do."""
        manifest = Checkpoints(self.folder).path(began["step"]) / MANIFEST
        if manifest.exists():
            return sha256(manifest) == began["checkpoint"]
        return Path(began["folder"]).resolve().name == self.folder.resolve().name


def parse_origin(text: str | Path) -> Origin:
    """The checkpoint that `RUN@STEP`, `RUN` (its newest) or a checkpoint's own folder names; it need not be there."""
    path = Path(text)
    if is_checkpoint(path):
        return Origin(folder=path.parents[1], step=int(path.name.removeprefix("step-")))
    name, at, step = str(text).rpartition("@")
    if at and step.isdecimal() and not path.exists():
        return Origin(folder=Path(name), step=int(step))
    return Origin(folder=path)


def begin_branch(origin: Origin, run: RunConfig, folder: RunFolder) -> PreparedData:
    """Make a run folder as if its run had been interrupted at this checkpoint; what it reads from here on.

    Raises:
        UserError: the run has no use for the checkpoint: other shapes, another optimizer or tokenizer, no step left;
            or it is broken. Nothing has been written.

    Warns:
        SpikelessWarning: the data come in another order; a setting without effect; a learning rate that jumps.
    """
    origin = origin.found()
    step = origin.step or 0
    checkpoint = Checkpoints(origin.folder).path(step)
    old = origin.run.config(modules_of(run))
    spec = run.data
    data = prepare(spec.spec, origin.run.tokenizer_for(run), validation_fraction=spec.validation_fraction)
    asked, run = run, fill_vocabulary(run, data)
    changes = diff(old, run)
    _refuse(origin, step, run, changes)
    model = build_model(run, "meta")
    _refuse_shapes(origin, read_checkpoint(checkpoint).model, model.state_dict())
    if data.data_hash != origin.run.data_hash:
        changes.append(Change("data_hash", origin.run.data_hash, data.data_hash))
    changed = {change.path for change in changes}
    _say_what_moves(checkpoint, step, changed)
    if not any(path.startswith(("optim.lr", "schedule")) for path in changed):
        warn_of_a_jump(run, old.steps, step)
    forgotten = ("precision", "precision_seconds") if "precision" in changed else ()
    environment = {key: value for key, value in origin.run.environment.items() if key not in forgotten}
    Checkpoints(folder.path).adopt(checkpoint)
    records = {
        "init_from": origin.run.init_from,
        "origin": {
            "folder": str(origin.folder),
            "step": origin.step,
            "tokens": origin.run.tokens(step),
            "checkpoint": sha256(checkpoint / MANIFEST),
            "changes": as_rows(changes),
        },
    }
    folder.begin(run, asked, data, sum(each.numel() for each in model.parameters()), environment, records)
    return data


def _refuse(origin: Origin, step: int, run: RunConfig, changes: Sequence[Change]) -> None:
    """Stop where the checkpoint would mean nothing, or there is nothing to do."""
    by_path = {change.path: change for change in changes}
    if run.steps <= step:
        raise UserError(f"a branch of {origin} with steps={run.steps} has none left; --set steps=… to more than {step}")
    if "optim" in by_path:
        raise UserError(f"a branch takes over the optimizer's moments, so the optimizer stays; {by_path['optim']}")
    if "data.tokenizer" in by_path:
        raise UserError(
            f"a branch takes over the embedding, whose rows are the tokenizer's tokens; {by_path['data.tokenizer']}"
        )


def _refuse_shapes(origin: Origin, saved: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Stop if the model has other parameters than the checkpoint."""
    theirs, ours = ({name: tuple(each.shape) for name, each in state.items()} for state in (saved, wanted))
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if names:
        was, would = (str(shapes.get(names[0], "missing")) for shapes in (theirs, ours))
        raise UserError(
            f"a branch takes over the parameters of {origin.folder}, so the model keeps their shapes: {names[0]} was "
            f"{was} and would be {would}{f'; {len(names) - 1} more' if names[1:] else ''}"
        )


def _say_what_moves(checkpoint: Path, step: int, changed: Collection[str]) -> None:
    if moved := [path for path in ORDER if path in changed]:
        _warn(
            f"{', '.join(moved)}: the data come in another order, which the branch joins at step {step + 1}; "
            "what was read before may come again"
        )
    if unused := [path for path in changed if path.startswith("init.")]:
        _warn(f"no effect, the weights are those of {checkpoint}: {', '.join(unused)}")


def _warn(message: str) -> None:
    warnings.warn(message, SpikelessWarning, stacklevel=3)
