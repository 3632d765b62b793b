"""A run's folder: what was asked for, where it ran, how it stands."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from spikeless.config import diff, find, names_in, to_dict
from spikeless.data import PreparedData
from spikeless.errors import SpikelessWarning, UserError
from spikeless.files import read_json, write_json
from spikeless.run import RunConfig
from spikeless.training.environment import DECIDES_BITS

__all__ = ["RunFolder", "label_of"]

MAY_CHANGE = ("steps",)  # a resume may train for longer


def label_of(run: RunConfig) -> str:
    """The name of a run's arm: its techniques, or "baseline"."""
    return "+".join(run.techniques) or "baseline"


class RunFolder:
    """Files of one run besides its metrics and checkpoints."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        """True if a run was begun here."""
        return (self.path / "run.json").exists()

    def refuse_other_run(self, run: RunConfig, resume: bool, data_hash: str) -> None:
        """Stop unless the folder is free, or holds this very run and `resume` was asked for.

        Raises:
            UserError: with the differences.
        """
        if not self.exists:
            return
        if not resume:
            raise UserError(f"{self.path} already holds a run; add --resume to go on with it, or choose another --out")
        stored = read_json(self.path / "run.json", "config", "data_hash")
        changes = [
            f"  {path}: {old!r} -> {new!r}"
            for path, (old, new) in _differences(stored["config"], to_dict(run)).items()
            if path not in MAY_CHANGE
        ]
        if changes:
            raise UserError(
                f"{self.path} holds a run with another configuration:\n" + "\n".join(changes) + "\n"
                "resume it with the configuration it began with (only more steps may be asked for), "
                "or choose another --out"
            )
        if stored["data_hash"] != data_hash:
            raise UserError(
                f"the data of {self.path} has changed since the run began (hash {stored['data_hash'][:12]}, now "
                f"{data_hash[:12]}); bring the same data back, or choose another --out"
            )

    def start(self) -> dict[str, Any] | None:
        """What the run recorded of the folder that it began from, if it did."""
        return read_json(self.path / "run.json").get("init_from")

    def begin(
        self,
        run: RunConfig,
        data: PreparedData,
        parameters: int,
        environment: dict[str, Any],
        start: dict[str, Any] | None = None,
    ) -> None:
        """Write down what runs here; a resume on another machine or thread count says so.

        Warns:
            SpikelessWarning: the resumed run will not be bit-identical to an uninterrupted one.
        """
        if (self.path / "environment.json").exists():
            before = read_json(self.path / "environment.json", *DECIDES_BITS)
            other = [
                f"{k} {before.get(k)} -> {environment[k]}" for k in DECIDES_BITS if before.get(k) != environment[k]
            ]
            if other:
                warnings.warn(
                    f"resumed under other conditions ({', '.join(other)}): results will differ in the last bits",
                    SpikelessWarning,
                    stacklevel=2,
                )
        data.tokenizer.save(self.path)
        write_json(self.path / "environment.json", environment)
        write_json(
            self.path / "run.json",
            {
                "spikeless": environment["spikeless"],
                "recipe": run.recipe,
                "label": label_of(run),
                "techniques": list(run.techniques),
                "data_hash": data.data_hash,
                "sources": [to_dict(each) | ({"loss": each.loss} if each.loss else {}) for each in data.sources],
                "parameters": parameters,
                "diff": changes_from_recipe(run),
                **({"init_from": start} if start else {}),
                "config": to_dict(run),
            },
        )

    def set_status(self, state: str, step: int, message: str = "") -> None:
        """Write how the run stands: running, finished, interrupted, unhealthy or failed."""
        write_json(self.path / "status.json", {"state": state, "step": step, "message": message})


def changes_from_recipe(run: RunConfig) -> list[dict[str, Any]]:
    """What differs from the plain recipe, as JSON; nothing if the recipe is not one of ours."""
    if run.recipe not in names_in("recipes"):
        return []
    plain = find("recipes", run.recipe)()
    plain = replace(plain, techniques=run.techniques)
    if plain.model.vocab_size is None:  # filled in from the tokenizer
        plain = replace(plain, model=replace(plain.model, vocab_size=run.model.vocab_size))
    return [{"path": c.path, "old": _plain(c.old), "new": _plain(c.new)} for c in diff(plain, run)]


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def _differences(old: Any, new: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        return {
            path: pair
            for key in dict.fromkeys([*old, *new])
            for path, pair in _differences(old.get(key), new.get(key), f"{prefix}{key}.").items()
        }
    return {} if old == new else {prefix.rstrip("."): (old, new)}
