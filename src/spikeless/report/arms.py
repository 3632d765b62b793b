"""Runs gathered into arms: the seeds of one setting belong together, two settings never share a name."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spikeless.report.record import RunRecord
from spikeless.report.style import Line

__all__ = ["Arm", "flatten", "gather"]

NOT_A_SETTING = {"seed", "folder"}  # config fields in which the runs of one arm may differ
NAMED_DIFFERENCES = 2


@dataclass(frozen=True, kw_only=True)
class Arm(Line):
    """One line style in the figures, one row in the table."""

    records: tuple[RunRecord, ...]

    @property
    def seeds(self) -> int:
        """How many different seeds it was run with."""
        return len({record.seed for record in self.records})

    def run_name(self, record: RunRecord) -> str:
        """What one of its runs is called: the arm's name, with the seed where there are several runs."""
        return self.name if len(self.records) == 1 else f"{self.name}, seed {record.seed}"


def gather(records: Sequence[RunRecord]) -> list[Arm]:
    """Runs that differ in their seed alone become one arm, in order of first appearance.

    Arms that would share a label are told apart by what differs: "baseline (optim.lr=0.01)".
    """
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(json.dumps([record.label, _setting(record)], sort_keys=True, default=str), []).append(record)
    firsts = [group[0] for group in groups.values()]
    return [
        Arm(name=_name(group[0], firsts), index=index, records=tuple(group))
        for index, group in enumerate(groups.values())
    ]


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dictionary with dotted paths as keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}.") if isinstance(value, dict) and value else {path: value}
    return flat


def _setting(record: RunRecord) -> dict[str, Any]:
    flat = {"recipe": record.recipe, **flatten(record.config)}
    return {path: value for path, value in flat.items() if path.rpartition(".")[2] not in NOT_A_SETTING}


def _name(record: RunRecord, firsts: Sequence[RunRecord]) -> str:
    settings = [_setting(other) for other in firsts if other.label == record.label]
    own = _setting(record)
    differing = [path for path in own if any(other.get(path) != own[path] for other in settings)]
    if len(settings) == 1:
        return record.label
    return f"{record.label} ({', '.join(f'{path}={own[path]}' for path in differing[:NAMED_DIFFERENCES])})"
