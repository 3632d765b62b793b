"""How a run goes on: what may change on the way, and what would make it another run."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from spikeless.config import Change, diff, modules_of
from spikeless.errors import SpikelessWarning, UserError
from spikeless.run import RunConfig
from spikeless.training.checkpoints import Checkpoints
from spikeless.training.run_folder import RunFolder

__all__ = ["changes_on_resume", "lower_rate_hint", "warn_of_a_jump"]

SAME_RATE = 1e-6
LAST_BITS = "the last bits of the numbers may differ"
MAY_CHANGE = {
    "steps": "",  # upwards only
    "data.spec": "the tokens are the same",  # told by their hash, as for the next one
    "data.tokenizer": "the tokens are the same",
    "data.micro_batches": LAST_BITS,
    "loss.chunk_tokens": LAST_BITS,
    "device": LAST_BITS,
    "compile": LAST_BITS,
    "precision": "numbers are rounded otherwise from here on",
    "evaluation.tokens": "validation losses before and after are of different texts",
    "evaluation.every": "",
    "checkpoint.every": "",
    "checkpoint.keep_last": "",
    "checkpoint.keep_best": "",
    "metrics.every": "",
    "metrics.diagnostics": "",
    "metrics.loggers": "",
}
"""What does not change the mathematics of a run, and what is said of it besides."""
NO_BRANCH = r"(recipe|techniques|init_from|optim|data\.tokenizer)|(model|init)(\..+)?"
"""Paths whose change a branch refuses, has no use for, or takes only if the parameters keep their shapes."""


def changes_on_resume(folder: RunFolder, run: RunConfig, data_hash: str) -> list[Change]:
    """What differs between the run that a folder holds and the one that is to go on there.

    Raises:
        UserError: it is another run: its mathematics, its data or fewer steps; nothing has been written.

    Warns:
        SpikelessWarning: for each change but that of the steps.
    """
    stored, steps = folder.config(modules_of(run)), Checkpoints(folder.path).steps()
    changes = diff(stored, run)
    others = [change for change in changes if change.path not in MAY_CHANGE]
    if others:
        raise UserError(
            f"{folder.path} holds a run with another configuration:\n"
            + "\n".join(f"  {change}" for change in others)
            + f"\nresume it as it was (spikeless train --resume --out {folder.path}), "
            + _elsewhere(folder.path, run, changes)
        )
    if run.steps < stored.steps:
        raise UserError(
            f"{folder.path} holds a run of {stored.steps} steps, and a resume may train for longer only, not for "
            f"steps={run.steps}; leave the steps out, {_elsewhere(folder.path, run, changes)}"
        )
    if folder.data_hash != data_hash:
        raise UserError(
            f"the data of {folder.path} has changed since the run began (hash {folder.data_hash[:12]}, now "
            f"{data_hash[:12]}); bring the same data back, {_elsewhere(folder.path, run, changes)}"
        )
    if folder.status.get("state") == "unhealthy" and steps:
        _warn(
            f"{folder.path} became unhealthy ({folder.status['message']}), and a resume does the same steps again; "
            f"{lower_rate_hint(folder.path, steps[-1])}"
        )
    for change in changes:
        if change.path != "steps":
            note = MAY_CHANGE[change.path]
            _warn(f"resumed with {change}" + (f"; {note}" if note else ""))
    return changes


def _elsewhere(folder: Path, run: RunConfig, changes: Sequence[Change]) -> str:
    """Where a run with these changes may go, as the end of a message; a branch is named if it would be accepted."""
    steps = [step for step in Checkpoints(folder).steps() if step < run.steps]
    if not steps or any(re.fullmatch(NO_BRANCH, change.path) for change in changes):
        return "or choose another --out"
    paths = dict.fromkeys(re.sub(r"\.\d+(\..*)?$", "", change.path) for change in changes)  # a tuple is set as a whole
    settings = "".join(f" --set {path}=…" for path in paths)
    return f"choose another --out, or begin a branch of it: --branch-from {folder}@{steps[-1]}{settings} --out NEW"


def lower_rate_hint(folder: Path, step: int) -> str:
    """How an unhealthy run can go on, as the end of a message."""
    return f"to go on from there with a lower rate: --branch-from {folder}@{step} --set optim.lr=… --out NEW"


def warn_of_a_jump(run: RunConfig, old_steps: int, step: int) -> None:
    """Say it if a schedule that depends on the number of steps gives the next step another learning rate.

    Args:
        run: with its new number of steps.
        old_steps: what it was trained for so far.
        step: steps done.

    Warns:
        SpikelessWarning: with both rates.
    """
    old, new = (lambda i, steps=steps: run.schedule.factor(i, steps) for steps in (old_steps, run.steps))
    if step and abs(new(step - 1) - old(step - 1)) > SAME_RATE:  # as shares of the peak
        before, after = run.optim.lr * old(min(step, old_steps - 1)), run.optim.lr * new(min(step, run.steps - 1))
        _warn(
            f"the schedule stretches from {old_steps} to {run.steps} steps: the learning rate of step {step + 1} is "
            f"{after:.3g}, not {before:.3g}"
        )


def _warn(message: str) -> None:
    warnings.warn(message, SpikelessWarning, stacklevel=3)
