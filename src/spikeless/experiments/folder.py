"""The folder of a comparison: the study that all its runs are of, and what earlier calls have left there."""

import contextlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikeless import stabilizers
from spikeless.config import PACKAGE, Change, diff, from_dict, modules_of, parse_calls, replace_at, to_dict
from spikeless.errors import UserError
from spikeless.experiments.analysis.comparison import Comparison
from spikeless.experiments.analysis.outcome import Outcome
from spikeless.experiments.cell import BY_HASH
from spikeless.experiments.grid import Cell, cell_in
from spikeless.files import read_json
from spikeless.run import RunConfig

__all__ = ["Study", "earlier_cells", "kept_rows", "named_modules"]

ROOMS = ("model", "init", "optim", "schedule", "gradients", "loss")
"""Where an arm whose code is not at hand may have written; all else is the study's."""
OF_STUDY = ("recipe", "vocab_size", "steps", "tokens_per_step", "precision")


@dataclass(frozen=True, kw_only=True)
class Study:
    """What all runs of one folder share: everything but arm, learning rate, depth, width and seed.

    Attributes:
        base: the baseline, with precision and vocabulary decided.
        data_hash: of its tokens.
        trusted: modules outside the package that the user has named.
    """

    base: RunConfig
    data_hash: str
    trusted: frozenset[str]

    def read(self, config: Mapping[str, Any]) -> tuple[RunConfig, bool]:
        """A stored run, and whether all of it could be read.

        Nothing is imported that the user has not named: what uses it gets the baseline's parts instead.

        Raises:
            UserError: it is no run.
        """
        with contextlib.suppress(UserError):
            return from_dict(config, RunConfig, self.trusted), True
        own = to_dict(self.base)
        run = from_dict({**config, **{room: own[room] for room in ROOMS}}, RunConfig, self.trusted)
        place = {"optim.lr": config["optim"]["lr"]}
        place |= {f"model.{name}": config["model"][name] for name in ("num_layers", "width")}
        return replace_at(run, place), False

    def differences(self, run: RunConfig, whole: bool = True) -> list[Change]:
        """What a run has, and the study instead, besides what its arm writes and what the hash of the data tells.

        The arguments are what `read` returns.
        """
        place = {"seed": run.seed, "optim.lr": run.optim.lr}
        place |= {f"model.{name}": getattr(run.model, name) for name in ("num_layers", "width")}
        plain = replace_at(self.base, place)
        written: set[str] = set(ROOMS)
        if whole and named_modules(run) <= self.trusted:
            with contextlib.suppress(UserError):  # a technique that is there no more
                written = {change.path for change in diff(plain, stabilizers.apply(plain, run.techniques))}
        written |= {"techniques", *BY_HASH}
        return [each for each in diff(run, plain) if not any(f"{each.path}.".startswith(f"{own}.") for own in written)]

    def refuse(self, what: str, changes: Iterable[object]) -> None:
        """Stop if there are differences.

        Raises:
            UserError: naming them.
        """
        if said := [f"  {each}" for each in changes]:
            raise UserError(
                f"{what} of another study than this command asks for:\n" + "\n".join(said) + "\n"
                "the runs of one folder differ in arm, learning rate, depth, width and seed alone; run the command "
                "with which it was begun, or choose another --out"
            )


def earlier_cells(folder: Path, study: Study, planned: Collection[str]) -> tuple[dict[str, Cell | None], list[str]]:
    """The runs of a study that lie in a folder besides the planned ones, by name; None for one not read whole.

    Returns:
        Them, and a sentence for each run that is left out since it is no cell of a grid.

    Raises:
        UserError: a run is of another study.
    """
    found: dict[str, Cell | None] = {}
    left_out = []
    for path in sorted(file.parent for file in folder.glob("*/run.json")):
        if path.name in planned:
            continue
        stored = read_json(path / "run.json", "config", "data_hash")
        run, whole = study.read(stored["config"])
        cell = cell_in(folder, run)
        if cell.folder != path:
            left_out.append(
                f"{path} is left out: it holds a run of its own, not one that `spikeless compare` made here"
            )
            continue
        changes: list[object] = list(study.differences(run, whole))
        if stored["data_hash"] != study.data_hash:
            changes.append(f"data: hash {stored['data_hash'][:12]} -> {study.data_hash[:12]}")
        study.refuse(f"{path} holds a run", changes)
        found[path.name] = cell if whole else None
    return found, left_out


def kept_rows(earlier: Comparison, study: Study, present: Collection[str]) -> list[Outcome]:
    """The rows of an earlier comparison that have ended and whose run folders are gone: they were measured once.

    Args:
        earlier: as it stands in the folder.
        study: of this call.
        present: names of the runs that this call knows.

    Raises:
        UserError: the comparison is of another study.
    """
    gone = [each for each in earlier.outcomes if each.ended and each.run not in present]
    if gone:
        about, base = earlier.about, study.base
        now = (base.recipe, base.model.vocab_size, base.steps)
        now += (base.data.batch_size * base.data.sequence_length, base.precision)
        pairs = {name: (getattr(about, name), own) for name, own in zip(OF_STUDY, now, strict=True)}
        pairs["data_hash"] = (about.environment.get("data_hash", study.data_hash), study.data_hash)
        changes = [f"{name}: {old!r} -> {new!r}" for name, (old, new) in pairs.items() if old != new]
        study.refuse(f"comparison.json holds {gone[0].run}, whose folder is gone,", changes)
    return gone


def named_modules(run: RunConfig) -> frozenset[str]:
    """The modules outside the package whose techniques and parts a run names."""
    names = (call.name for each in run.techniques for call in parse_calls(each))
    techniques = {name.partition(":")[0] for name in names if ":" in name}
    return frozenset(techniques | {each for each in modules_of(run) if not each.startswith(f"{PACKAGE}.")})
