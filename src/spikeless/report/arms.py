"""Runs gathered into arms: the seeds of one setting belong together, two settings never share a name."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spikeless.report.record import RunRecord
from spikeless.report.style import Line

__all__ = ["Arm", "flatten", "gather", "text"]

ASIDE = ("recipe", "seed", "metrics.", "checkpoint.", "evaluation.every")
"""What is told in another way, and settings of how a run is watched and kept, which change no number of it."""
HASHES: dict[str, tuple[Callable[[RunRecord], str | None], Callable[[RunRecord], Any]]] = {
    "weights": (lambda record: record.start.get("weights"), lambda record: record.config.get("init_from")),
    "data_hash": (lambda record: record.data_hash, lambda record: record.config.get("data")),
}
"""What identifies the first weights and the tokens, each with the setting that tells them apart first."""
HASH_LENGTH = 12


@dataclass(frozen=True, kw_only=True)
class Arm(Line):
    """One line style in the figures, one row in the table."""

    records: tuple[RunRecord, ...]

    @property
    def seeds(self) -> int:
        """How many different seeds it was run with."""
        return len({record.seed for record in self.records})

    def run_name(self, record: RunRecord) -> str:
        """What one of its runs is called: the arm's name, with seed and folder where those of others differ."""
        if len(self.records) == 1:
            return self.name
        name = f"{self.name}, seed {record.seed}"
        return name if self.seeds == len(self.records) else f"{name}, {record.folder}"


def gather(records: Sequence[RunRecord]) -> list[Arm]:
    """Runs that differ in their seed alone, or in how they were watched, become one arm, in order of first appearance.

    Arms that would share a label are told apart by all that differs: "baseline (optim.lr=0.01, data.spec=pydocs)".
    """
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        setting = {path: value for path, value in flatten(record.config).items() if not path.startswith(ASIDE)}
        facts = [record.label, record.recipe, record.branch, record.start.get("weights"), record.data_hash]
        groups.setdefault(json.dumps([facts, setting], sort_keys=True, default=str), []).append(record)
    names = _names([tuple(group) for group in groups.values()])
    return [
        Arm(name=name, index=index, records=tuple(group))
        for index, (name, group) in enumerate(zip(names, groups.values(), strict=True))
    ]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dictionary with dotted paths as keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}.") if isinstance(value, dict) and value else {path: value}
    return flat


def text(value: Any) -> str:
    """A value of a config as text: strings bare, a part as it is written, the rest as JSON."""
    if isinstance(value, dict) and isinstance(value.get("type"), str):
        inner = ", ".join(f"{key}={text(each)}" for key, each in value.items() if key != "type")
        return f"{_part(value['type'])}({inner})" if inner else _part(value["type"])
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return "+".join(map(text, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _part(kind: str) -> str:
    return kind.rpartition(":")[2]


def _names(groups: Sequence[tuple[RunRecord, ...]]) -> list[str]:
    """A name for each arm, no two alike."""
    recipes = len({group[0].recipe for group in groups}) > 1
    names = []
    for group in groups:
        first = group[0]
        alike = [other for other in groups if other[0].label == first.label]
        told = _differences(group, alike) if len(alike) > 1 else {}
        inner = ", ".join(f"{path}={text(value)}" for path, value in told.items())
        names.append(first.label + (f" on {first.recipe}" if recipes else "") + (f" ({inner})" if inner else ""))
    taken = Counter(names)  # a field that one version of spikeless records and another does not, say
    return [
        name if taken[name] == 1 else f"{name}, {group[0].folder}" for name, group in zip(names, groups, strict=True)
    ]


def _differences(group: tuple[RunRecord, ...], alike: Sequence[tuple[RunRecord, ...]]) -> dict[str, Any]:
    """What tells an arm from those of the same label: settings by path, then seed, origin, first weights, data."""
    first, others = group[0], [other[0] for other in alike if other is not group]
    told = _settings(first.config, [(other.config, _compared(first, other)) for other in others])
    if "data.tokenizer" in told:
        told.pop("model.vocab_size", None)  # which is that of the tokenizer
    if len(group) == 1 and any({record.seed for record in other} != {first.seed} for other in alike):
        told["seed"] = first.seed
    if first.branch and any(other.branch != first.branch for other in others):
        told["branch"] = first.branch
    for name, (hash_of, told_by) in HASHES.items():
        own = hash_of(first)
        if own and any(told_by(other) == told_by(first) and hash_of(other) != own for other in others):
            told[name] = own[:HASH_LENGTH]
    return told


def _compared(record: RunRecord, other: RunRecord) -> Callable[[str], bool]:
    """The paths that count: with a run of another recipe only those that were changed against the recipes."""
    if record.recipe == other.recipe:
        return lambda path: True
    changed = [str(each["path"]) for each in (*record.diff, *other.diff)]
    return lambda path: any(f"{each}.".startswith(f"{path}.") or path.startswith(f"{each}.") for each in changed)


def _settings(own: dict[str, Any], others: Sequence[tuple[Any, Callable[[str], bool]]], at: str = "") -> dict[str, Any]:
    """The settings that another run has otherwise, by path; a part of another type as a whole.

    A field that another run does not have says nothing: an older version of spikeless did not record it.
    """
    told: dict[str, Any] = {}
    for key, value in own.items():
        path = f"{at}{key}"
        known = [(other[key], counts) for other, counts in others if key in other and counts(path)]
        differing = [(other, counts) for other, counts in known if other != value]
        if not differing or path.startswith(ASIDE):
            continue
        if isinstance(value, dict) and all(_same_part(value, other) for other, _ in differing):
            told |= _settings(value, differing, f"{path}.")
        else:
            told[path] = value
    return told


def _same_part(part: dict[str, Any], other: Any) -> bool:
    return isinstance(other, dict) and part.get("type") == other.get("type")
