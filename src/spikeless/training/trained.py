"""A finished or stopped run as what it made: a model, its tokenizer, where it came from."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from spikeless.config import from_dict, is_ours
from spikeless.data import Tokenizer, load_tokenizer
from spikeless.errors import UserError
from spikeless.files import read_json
from spikeless.nn.transformer import Transformer
from spikeless.run import RunConfig
from spikeless.training.checkpoints import Checkpoints, is_checkpoint, read_checkpoint
from spikeless.weights.folder import refuse_adapter

__all__ = ["Trained", "load_trained", "read_description"]

TRAINING_ONLY = ("init", "optim", "schedule", "gradients")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One checkpoint of a run.

    Attributes:
        model: ready to compute, in fp32.
        tokenizer: the run's.
        run: its description, but for what was left out.
        folder: the run's folder.
        step: optimizer steps done.
        left_out: what its training needs from outside the package and its model does not; defaults stand there.
    """

    model: Transformer
    tokenizer: Tokenizer
    run: RunConfig
    folder: Path
    step: int
    left_out: tuple[str, ...] = ()


def load_trained(path: Path, run: RunConfig | None = None, trusted: Collection[str] = ()) -> Trained:
    """What a run folder (its newest checkpoint) or one checkpoint in it holds.

    Args:
        path: the folder.
        run: the run's description, instead of the stored one.
        trusted: modules outside the package whose parts the stored description may name.

    Raises:
        UserError: not such a folder, or no whole checkpoint.
    """
    run_folder = path.parent.parent if is_checkpoint(path) else path
    if not (run_folder / "run.json").exists():
        refuse_adapter(path)
        raise UserError(f"{path} is neither a run folder (it has no run.json) nor a checkpoint in one")
    checkpoint = read_checkpoint(path) if is_checkpoint(path) else Checkpoints(path).newest()
    if checkpoint is None:
        raise UserError(f"{path} has no checkpoint yet; train it for longer, or set checkpoint.every lower")
    left_out: tuple[str, ...] = ()
    if run is None:
        run, left_out = read_description(run_folder, trusted)
    model = Transformer(run.model)
    try:
        model.load_state_dict(checkpoint.model)
    except RuntimeError:
        raise UserError(
            f"{path}: the checkpoint is not of the model that {run_folder / 'run.json'} describes; was the file edited?"
        ) from None
    tokenizer = load_tokenizer(run_folder)
    return Trained(
        model=model.eval(), tokenizer=tokenizer, run=run, folder=run_folder, step=checkpoint.step, left_out=left_out
    )


def read_description(run_folder: Path, trusted: Collection[str] = ()) -> tuple[RunConfig, tuple[str, ...]]:
    """A run's description for whoever uses its model, and what was left out of it.

    Parts from outside the package that only training needs are left out, so that nobody has to bring them.

    Raises:
        UserError: a part of the model comes from outside the package, from a module that is not trusted.
    """
    stored = read_json(run_folder / "run.json", "config")["config"]
    left_out = tuple(name for name in TRAINING_ONLY if not is_ours(stored.get(name)))
    kept = {name: value for name, value in stored.items() if name not in left_out}
    if not is_ours(stored["data"].get("boundaries")):
        kept["data"] = {name: value for name, value in stored["data"].items() if name != "boundaries"}
        left_out += ("data.boundaries",)
    return from_dict(kept, RunConfig, trusted), left_out
