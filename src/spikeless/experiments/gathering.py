"""One comparison of everything that lies in its folder: this call's runs, and those of earlier calls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spikeless.config import diff, replace_at
from spikeless.experiments.analysis.comparison import About, Comparison
from spikeless.experiments.analysis.outcome import Outcome
from spikeless.experiments.cell import outcome_at, outcome_in
from spikeless.experiments.folder import Study, kept_rows
from spikeless.experiments.grid import BASELINE, Cell
from spikeless.files import read_json
from spikeless.report import RunRecord, read_run
from spikeless.run import RunConfig
from spikeless.training.build import build_model
from spikeless.training.environment import describe_environment, resolve_device
from spikeless.training.estimate import flops_per_token

__all__ = ["Contents", "gather"]

OF_ONE_RUN = ("seed", "precision_seconds")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What lies in the folder of a comparison.

    Attributes:
        folder: of the comparison.
        study: that all are of.
        cells: of this call.
        others: of earlier calls, by name; None for one whose parts the user has not named.
        earlier: the comparison as an earlier call wrote it, if one did.
        remarks: what was decided, a sentence each.
        losses: what was skipped or repaired of the data, where it was much; it has been warned of.
    """

    folder: Path
    study: Study
    cells: Sequence[Cell]
    others: Mapping[str, Cell | None]
    earlier: Comparison | None
    remarks: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()

    @property
    def readable(self) -> list[Cell]:
        """The cells whose configuration is known, this call's first."""
        return [*self.cells, *(cell for cell in self.others.values() if cell is not None)]

    @property
    def present(self) -> dict[str, Path]:
        """Run folders by name, also of those that were not begun."""
        return {name: self.folder / name for name in [*(cell.folder.name for cell in self.cells), *self.others]}

    @property
    def gone(self) -> list[Outcome]:
        """Rows of the earlier comparison whose run folders are gone."""
        return kept_rows(self.earlier, self.study, self.present) if self.earlier else []


def gather(contents: Contents, crashed: Mapping[str, Outcome], about: About) -> Comparison:
    """What is on the disk now, as one comparison.

    Args:
        contents: of the folder.
        crashed: runs whose process died during this call, by name.
        about: the circumstances; what earlier calls noted is added.
    """
    earlier = contents.earlier
    rows = {row.run: row for row in earlier.outcomes} if earlier else {}
    flops: dict[tuple, float] = {}
    outcomes = []
    for cell in contents.readable:
        key = cell.arm, cell.shape
        if key not in flops:
            flops[key] = flops_per_token(build_model(cell.run, "meta"), cell.run.data.sequence_length)
        now = outcome_at(cell, flops_per_token=flops[key])
        outcomes.append(crashed.get(cell.folder.name) or _as_it_ended(now, rows))
    for name in (name for name, cell in contents.others.items() if cell is None):
        known = {"flops_per_token": rows[name].flops_per_token, "scores": rows[name].scores} if name in rows else {}
        outcomes.append(_as_it_ended(outcome_in(contents.folder / name, **known), rows))
    outcomes += (gone := contents.gone)
    arms = [*([BASELINE] if any(each.arm == BASELINE for each in outcomes) else []), *(earlier.arms if earlier else [])]
    order = {arm: place for place, arm in enumerate(dict.fromkeys([*arms, *(each.arm for each in outcomes)]))}
    outcomes.sort(key=lambda each: (order[each.arm], each.seed, each.depth, each.width, each.lr))
    commands = [*(earlier.about.command.splitlines() if earlier else []), *about.command.splitlines()]
    folders = [folder for folder in contents.present.values() if (folder / "run.json").exists()]
    data = read_run(folders[0]) if folders else None  # all read the same
    about = replace(
        about,
        command="\n".join(dict.fromkeys(commands)),
        changes={**(earlier.about.changes if earlier else {}), **_changes(contents.study.base, contents.readable)},
        remarks=(*about.remarks, *_lost(data), *_kept(gone)),
        sources=data.data if data else {},
        environment=_environment(folders) or describe_environment(resolve_device(contents.study.base.device)),
    )
    return Comparison(about=about, outcomes=tuple(outcomes))


def _as_it_ended(now: Outcome, rows: Mapping[str, Outcome]) -> Outcome:
    """The outcome; as an earlier call recorded it where the process died, which a run folder does not tell."""
    before = rows.get(now.run)
    return before if before is not None and before.state == "crashed" and not now.ended else now


def _lost(data: RunRecord | None) -> list[str]:
    return [f"{source}: {loss}" for source, loss in data.losses.items()] if data else []


def _kept(gone: Sequence[Outcome]) -> list[str]:
    runs = f"{len(gone)} run{' whose folder is' if len(gone) == 1 else 's whose folders are'} gone"
    return [f"{runs}: the numbers are those of the earlier comparison.json"] if gone else []


def _environment(folders: Sequence[Path]) -> dict[str, Any]:
    """Where the runs were computed, with every value that differs between them; empty if none was begun."""
    files = [folder / "environment.json" for folder in folders]
    found = [read_json(file) for file in files if file.exists()]
    keys = [key for key in (found[0] if found else {}) if key not in OF_ONE_RUN]
    values = {key: list(dict.fromkeys(str(each.get(key)) for each in found)) for key in keys}
    return {key: ", ".join(each) for key, each in values.items()}


def _changes(base: RunConfig, cells: Sequence[Cell]) -> dict[str, tuple[str, ...]]:
    """By arm, what differs from the baseline of the same shape, learning rate and seed."""
    found = {}
    for cell in cells:
        if cell.arm not in found:
            depth, width = cell.shape
            place = {"seed": cell.run.seed, "optim.lr": cell.run.optim.lr}
            place |= {"model.num_layers": depth, "model.width": width}
            plain = replace_at(base, place)
            found[cell.arm] = tuple(map(str, diff(plain, replace_at(cell.run, {"techniques": ()}))))
    return found
