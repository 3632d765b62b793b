"""A run that begins from a Hugging Face folder: what it takes from there, and which techniques fit."""

import warnings
from dataclasses import replace
from pathlib import Path

import torch

from spikeless import stabilizers
from spikeless.config import diff, from_dict
from spikeless.errors import SpikelessWarning, UserError
from spikeless.files import read_json
from spikeless.nn.transformer import ModelConfig, Transformer
from spikeless.pretrained.read import check_pretrained
from spikeless.run import RunConfig

__all__ = ["begin_from", "check_start"]

KEEPS_FUNCTION = ("model.embedding.gradient_share", "model.context_length")


def begin_from(run: RunConfig, folder: str, begun: Path | None = None) -> RunConfig:
    """The run with the model and the tokenizer of a Hugging Face folder; sequences no longer than its context.

    Args:
        run: gives optimizer, data and steps.
        folder: as it was given.
        begun: a run folder that was begun so; what it recorded is used, and the folder may be gone.

    Raises:
        UserError: no such folder, a model that we do not have, or weights that are not its.
    """
    recorded = begun and (begun / "run.json").exists() and read_json(begun / "run.json").get("init_from")
    model = from_dict(recorded["model"], ModelConfig) if recorded else check_pretrained(Path(folder))
    length = min(run.data.sequence_length, model.context_length)
    data = replace(run.data, tokenizer=f"hf:{folder}", sequence_length=length)
    return replace(run, model=model, data=data, init_from=folder)


def check_start(base: RunConfig, run: RunConfig) -> None:
    """Refuse what the checkpoint has no weights for; say what changes its function, and what has no effect.

    Args:
        base: as `begin_from` gave it.
        run: with techniques and settings.

    Raises:
        UserError: naming the technique, or the parameters where a setting is the cause.

    Warns:
        SpikelessWarning: the model at step 0 is not that of the folder; an initialisation is asked for.
    """
    missing = _unlike(base.model, run.model)
    if missing:
        guilty = [each for each in run.techniques if _unlike(base.model, stabilizers.apply(base, [each]).model)]
        cause = " and ".join(guilty) or "the settings of model.*"
        raise UserError(
            f"{cause}: {base.init_from} has no weights for {', '.join(missing[:3])}{', …' if missing[3:] else ''}; "
            "begin from it without, or train from the start"
        )
    changed = [str(each) for each in diff(base, run) if _changes_function(each.path)]
    if changed:
        warnings.warn(f"the model differs from that in {base.init_from}: {', '.join(changed)}", SpikelessWarning, 2)
    unused = [each.path for each in diff(base, run) if each.path.startswith("init.")]
    if unused:
        warnings.warn(f"no effect, the weights come from {base.init_from}: {', '.join(unused)}", SpikelessWarning, 2)


def _changes_function(path: str) -> bool:
    return path.startswith("model.") and path not in KEEPS_FUNCTION


def _unlike(base: ModelConfig, other: ModelConfig) -> list[str]:
    """Parameters that one model has and the other has not, or with another shape."""
    with torch.device("meta"):
        ours, theirs = (
            {name: tuple(each.shape) for name, each in Transformer(config).named_parameters()}
            for config in (base, other)
        )
    names = [*theirs, *(name for name in ours if name not in theirs)]
    return [name for name in names if ours.get(name) != theirs.get(name)]
