"""A run's folder: what was asked for, where it ran, how it stands."""

import contextlib
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spikeless.config import Change, diff, find, from_dict, names_in, to_dict
from spikeless.data import PreparedData, Tokenizer, load_tokenizer
from spikeless.errors import SpikelessWarning, UserError
from spikeless.files import read_json, write_json
from spikeless.run import RunConfig
from spikeless.training.checkpoints import Checkpoints
from spikeless.training.environment import DECIDES_BITS

__all__ = ["RunFolder", "as_rows", "label_of", "writing_to"]


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

    @property
    def data_hash(self) -> str:
        """That of the data that the run reads."""
        return self._record("data_hash")["data_hash"]

    @property
    def environment(self) -> dict[str, Any]:
        """Where the run was computed; empty if that is not recorded."""
        path = self.path / "environment.json"
        return read_json(path, "precision_seconds", *DECIDES_BITS) if path.exists() else {}

    def config(self, trusted: Collection[str] = ()) -> RunConfig:
        """The run's description; of the modules outside the package it may name those that are trusted."""
        return from_dict(self._record("config")["config"], RunConfig, trusted)

    def asked(self, trusted: Collection[str] = ()) -> RunConfig:
        """The run's description as it was asked for: a vocabulary that the tokenizer filled in is left to it again."""
        run, record = self.config(trusted), self._record()
        listed = {each["path"] for each in record.get("diff", ())}
        is_older = "reading" not in record  # 0.1.0 listed no vocabulary that was asked for
        if is_older or {"model", "model.vocab_size"} & listed or run.recipe not in names_in("recipes"):
            return run
        filled = find("recipes", run.recipe)().model.vocab_size is None
        return replace(run, model=replace(run.model, vocab_size=None)) if filled else run

    def claim(self, branch: bool = False) -> None:
        """Stop if the folder holds a run, unless that failed before its first checkpoint.

        Args:
            branch: what begins here has a checkpoint already, which a kill may have left here without a run.

        Raises:
            UserError: it does, or it holds checkpoints that a later resume would take for the new run's.
        """
        if self.exists and not self._failed_at_once():
            raise UserError(f"{self.path} already holds a run; add --resume to go on with it, or choose another --out")
        checkpoints = Checkpoints(self.path)
        if not self.exists and not branch and checkpoints.steps():
            raise UserError(f"{checkpoints.folder} holds checkpoints of a run that is gone; choose another --out")

    @property
    def status(self) -> dict[str, Any]:
        """How the run stands: state, step, message; empty if nothing was written yet."""
        path = self.path / "status.json"
        return read_json(path, "state", "step", "message") if path.exists() else {}

    @property
    def origin(self) -> dict[str, Any]:
        """What the run recorded of the checkpoint that it branched off from; empty if it began by itself."""
        return self._record().get("origin", {})

    @property
    def init_from(self) -> dict[str, Any]:
        """What the run recorded of the Hugging Face folder that it began from; empty if it drew its weights."""
        return self._record().get("init_from", {})

    def tokens(self, step: int) -> int:
        """How many tokens a run that was begun here has trained on after a step; a branch counts its origin's too."""
        data = self._record("config")["config"]["data"]
        before = self.origin or {"step": 0, "tokens": 0}
        return before["tokens"] + (step - before["step"]) * data["batch_size"] * data["sequence_length"]

    def tokenizer_for(self, run: RunConfig) -> str | Tokenizer:
        """The tokenizer that is kept here; what the run names if that is another."""
        named = self._record("config")["config"]["data"]["tokenizer"]
        return load_tokenizer(self.path) if run.data.tokenizer == named else run.data.tokenizer

    def records(self, step: int, changes: Sequence[Change], environment: Mapping[str, Any]) -> dict[str, Any]:
        """What run.json tells of the past of a run that goes on: how it began, and what changed at every resume.

        Args:
            step: at which it goes on.
            changes: of its description.
            environment: where it goes on.

        Warns:
            SpikelessWarning: the resumed run will not be bit-identical to an uninterrupted one.
        """
        before, asked = self.environment, {change.path for change in changes}
        moved = [
            Change(key, before[key], environment[key])
            for key in DECIDES_BITS
            if key in before and key not in asked and before[key] != environment[key]
        ]
        if moved:
            told = ", ".join(f"{each.path} {each.old} -> {each.new}" for each in moved)
            message = f"resumed under other conditions ({told}): results will differ in the last bits"
            warnings.warn(message, SpikelessWarning, stacklevel=2)
        now = as_rows([*changes, *moved])
        history = [*self._record().get("history", []), *([{"step": step, "changes": now}] if now else [])]
        return {"init_from": self.init_from, "origin": self.origin, "history": history}

    def begin(
        self,
        run: RunConfig,
        asked: RunConfig,
        data: PreparedData,
        parameters: int,
        environment: dict[str, Any],
        records: Mapping[str, Any],
    ) -> None:
        """Write down what runs here.

        Args:
            run: its description.
            asked: the same before the vocabulary was filled in from the tokenizer, to be set against the recipe.
            data: what it reads.
            parameters: how many there are.
            environment: where it is computed.
            records: what else run.json tells, where there is anything to tell.
        """
        data.tokenizer.save(self.path)
        write_json(self.path / "environment.json", environment)
        write_json(
            self.path / "run.json",
            {
                "spikeless": environment.get("spikeless"),
                "recipe": run.recipe,
                "label": label_of(run),
                "techniques": list(run.techniques),
                "data_hash": data.data_hash,
                "sources": [to_dict(each) | ({"loss": each.loss} if each.loss else {}) for each in data.sources],
                "reading": to_dict(data.tokenizer.reading),
                "parameters": parameters,
                "diff": changes_from_recipe(asked),
                **{key: value for key, value in records.items() if value},
                "config": to_dict(run),
            },
        )

    def set_status(self, state: str, step: int, message: str = "") -> None:
        """Write how the run stands: running, finished, interrupted, unhealthy or failed."""
        write_json(self.path / "status.json", {"state": state, "step": step, "message": message})

    def _record(self, *keys: str) -> dict[str, Any]:
        return read_json(self.path / "run.json", *keys)

    def _failed_at_once(self) -> bool:
        return self.status.get("state") == "failed" and not (self.path / "checkpoints").exists()


def as_rows(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Changes as JSON."""
    return [{"path": each.path, "old": _plain(each.old), "new": _plain(each.new)} for each in changes]


def changes_from_recipe(run: RunConfig, plain: RunConfig | None = None) -> list[dict[str, Any]]:
    """What differs from the plain recipe, as JSON; nothing if that is not given and the recipe is not one of ours."""
    if plain is None and run.recipe not in names_in("recipes"):
        return []
    base: RunConfig = plain or find("recipes", run.recipe)()
    return as_rows(diff(replace(base, techniques=run.techniques), run))


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Let errors of the disk be a user's: of this folder, or of what could not be read.

    Raises:
        UserError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None and not Path(error.filename).resolve().is_relative_to(path.resolve()):
            raise UserError(f"cannot read {error.filename}: {error.strerror or error}") from error
        raise UserError(f"cannot write to {path}: {error.strerror or error}") from error
