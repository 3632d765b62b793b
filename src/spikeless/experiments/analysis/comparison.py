"""A comparison as numbers: what was asked, where it ran, and the outcome of every run; written and read as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cattrs

from spikeless.errors import UserError
from spikeless.experiments.analysis.outcome import CONVERTER, Outcome, read_outcome
from spikeless.files import portable, read_json, write_text

__all__ = ["About", "Comparison", "read_comparison"]

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class About:
    """What a comparison was, besides its runs.

    Attributes:
        recipe: the recipe of its baseline.
        command: with which it was made, a line each if there were several; empty from Python.
        data: the data spec.
        tokenizer: its spec.
        vocab_size: [tokens].
        steps: planned for each run [optimizer steps].
        tokens_per_step: [tokens].
        precision: of matrix products.
        settings: `path=value` that all arms share.
        remarks: what was decided besides, a sentence each.
        reached: the largest share of the peak learning rate that the schedule comes to; None before 0.2.0.
        sources: by source of the data, what was read of it and what was skipped, in words.
        changes: by arm, what differs from the baseline: "path: old -> new".
        jobs: processes at a time.
        threads: of each.
        reading_seconds: one reading of each diagnostic, on the first run's model [s].
        seconds: wall time of the grid, of this and of earlier calls [s].
        environment: versions, commit, machine.
    """

    recipe: str
    command: str = ""
    data: str
    tokenizer: str
    vocab_size: int
    steps: int
    tokens_per_step: int
    precision: str
    settings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    reached: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    jobs: int = 1
    threads: int = 1
    reading_seconds: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    environment: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What was asked and what came of it.

    Attributes:
        about: the circumstances.
        outcomes: one a run, failed, crashed and unfinished ones too.
    """

    about: About
    outcomes: tuple[Outcome, ...]

    @property
    def arms(self) -> list[str]:
        """Its arms, in order of first appearance."""
        return list(dict.fromkeys(each.arm for each in self.outcomes))

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Depths [layers] and widths [dimensions], ascending."""
        return sorted({(each.depth, each.width) for each in self.outcomes})

    @property
    def lrs(self) -> list[float]:
        """Learning rates, ascending."""
        return sorted({each.lr for each in self.outcomes})

    def select(self, **wanted: Any) -> list[Outcome]:
        """The outcomes whose fields have these values: `select(arm="mlra", lr=1e-2)`."""
        return [each for each in self.outcomes if all(getattr(each, key) == value for key, value in wanted.items())]

    def to_json(self) -> dict[str, Any]:
        """As plain data, with everything that `read_comparison` needs."""
        runs = [each.to_json() for each in self.outcomes]
        return portable({"format": FORMAT, "about": asdict(self.about), "runs": runs})

    def write(self, path: Path, derived: Mapping[str, Any] | None = None) -> None:
        """Write it, crash-safely.

        Args:
            path: the JSON file.
            derived: what was computed from it, for readers without this package; not read back.
        """
        plain = self.to_json() | portable(dict(derived or {}))
        runs = ",\n".join(json.dumps(each, ensure_ascii=False, allow_nan=False) for each in plain.pop("runs"))
        rest = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
        write_text(path, f'{rest},\n "runs": [\n{runs}\n]\n}}\n')  # a run a line


def read_comparison(path: Path) -> Comparison:
    """A comparison from its JSON file.

    Raises:
        UserError: the file is missing, damaged or of another format.
    """
    data = read_json(path, "format", "about", "runs")
    if data["format"] != FORMAT:
        raise UserError(f"{path} has format {data['format']!r}; this version reads format {FORMAT}")
    try:
        about = CONVERTER.structure(data["about"], About)
    except (cattrs.BaseValidationError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: 'about' does not describe a comparison") from error
    return Comparison(about=about, outcomes=tuple(_each(data["runs"], path)))


def _each(runs: Any, path: Path) -> Sequence[Outcome]:
    if not isinstance(runs, list):
        raise UserError(f"{path} is damaged: 'runs' is not a list")
    try:
        return [read_outcome(each) for each in runs]
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}") from error
