"""Options that several verbs share, and the run that they describe."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from spikeless.config import assigned, replace_at
from spikeless.data import prepared_tokenizer
from spikeless.errors import SpikelessWarning, UserError, nearest
from spikeless.files import write_json
from spikeless.recipes import compose, stored
from spikeless.report import RunRecord, read_runs
from spikeless.run import RunConfig

__all__ = [
    "Data",
    "Device",
    "JSONFile",
    "LearningRate",
    "Outside",
    "PrecisionOption",
    "Recipe",
    "Seed",
    "Set",
    "Steps",
    "Tokenizer",
    "With",
    "described_run",
    "output_folder",
    "readable_runs",
    "refuse_twice",
    "write_or_print",
]

Recipe = Annotated[str, typer.Argument(help="A recipe; `spikeless list recipes` shows them.")]
With = Annotated[
    list[str] | None,
    typer.Option("--with", help="A technique, e.g. scaled_embed or mlra(rank=16); may be repeated or joined by +."),
]
Outside = Annotated[
    list[str] | None,
    typer.Option(
        "--with", help="Code from outside the package that the run's model uses, as MODULE:NAME; it is imported."
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting as path=value, e.g. data.batch_size=32; may be repeated. `show` prints all."),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="pydocs, text:GLOB, jsonl:GLOB, csv:GLOB, parquet:GLOB, hf:NAME_OR_DIR, shards:DIR, mix:0.7*A+0.3*B.",
    ),
]
Steps = Annotated[int | None, typer.Option("--steps", help="Optimizer steps; short for --set steps=….")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Peak learning rate; short for --set optim.lr=….")]
Seed = Annotated[
    int | None,
    typer.Option("--seed", help="Seed of the initial weights and of the order of the data; short for --set seed=…."),
]
Tokenizer = Annotated[str | None, typer.Option("--tokenizer", help="bpe:N, bytes, or hf:NAME_OR_DIR.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
PrecisionOption = Annotated[
    str | None, typer.Option("--precision", help="fp32, bf16, or auto: measure a step of each and take the faster.")
]

JSONFile = Annotated[str | None, typer.Option("--json", help="Write the numbers to this file; - prints them.")]

PATHS = {
    "data": "data.spec",
    "tokenizer": "data.tokenizer",
    "device": "device",
    "precision": "precision",
    "steps": "steps",
    "lr": "optim.lr",
    "seed": "seed",
}
"""What the options that are short for a setting set."""
_PRECISIONS = ("fp32", "bf16", "auto")


def described_run(
    recipe: str | Path,
    techniques: list[str] | None,
    assignments: list[str] | None,
    data: str | None = None,
    tokenizer: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    init_from: str | None = None,
    begun: Path | None = None,
    *,
    steps: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
) -> RunConfig:
    """The run that a command line describes.

    What has an option of its own may be set by `--set` instead, never by both. Instead of a recipe's name it may be
    a run folder: the run that it holds.

    Raises:
        UserError: what is wrong with it.

    Warns:
        SpikelessWarning: what it begins from has another tokenizer.
    """
    if precision is not None and precision not in _PRECISIONS:
        raise UserError(f"--precision {precision!r} is unknown; {nearest(precision, _PRECISIONS, 'precision')}")
    words = {"data": data, "tokenizer": tokenizer, "device": device, "precision": precision}
    numbers = {"steps": steps, "lr": lr, "seed": seed}
    for option, value in (words | numbers).items():
        if value is not None:
            refuse_twice(option, assignments)
    if data is not None and tokenizer is None and PATHS["tokenizer"] not in _paths(assignments) and init_from is None:
        words["tokenizer"] = prepared_tokenizer(data)
    short = [f"{PATHS[option]}={value!r}" for option, value in numbers.items() if value is not None]
    settings = [*(assignments or ()), *short]
    if isinstance(recipe, Path):
        if init_from is not None:
            raise UserError(f"what {recipe} began from is recorded there; leave out --init-from")
        run = stored(recipe, techniques or (), settings)
    else:
        run = compose(recipe, techniques or (), settings, init_from, begun)
    run = replace_at(run, {PATHS[option]: value for option, value in words.items() if value is not None})
    if init_from is not None and run.data.tokenizer != f"hf:{init_from}":
        message = f"the tokenizer {run.data.tokenizer} replaces that of {init_from}: ids may mean other tokens"
        warnings.warn(message, SpikelessWarning, 2)
    return run


def refuse_twice(option: str, assignments: list[str] | None) -> None:
    """Stop if `--set` sets what an option sets.

    Raises:
        UserError: which of the two to leave out is the user's choice.
    """
    if PATHS[option] in _paths(assignments):
        raise UserError(f"--{option} and --set {PATHS[option]}=… both set {PATHS[option]}; choose one of them")


def _paths(assignments: list[str] | None) -> set[str]:
    return {path for each in assignments or () for path in assigned(each)}


def readable_runs(folders: Sequence[Path]) -> list[RunRecord]:
    """The runs in some folders; of a damaged one a warning says what is wrong.

    Raises:
        UserError: there is none that can be read.
    """
    records, damages = read_runs(folders)
    for damage in damages:
        warnings.warn(f"left out: {damage}", SpikelessWarning, 2)
    return records


def write_or_print(json_file: str | None, data: Any) -> bool:
    """Do what `--json` asks for; true if the numbers were printed, so that nothing else should be.

    Raises:
        UserError: the file cannot be written.
    """
    if json_file == "-":
        print(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))
        return True
    if json_file:
        write_json(Path(json_file), data)
    return False


def output_folder(out: Path | None, *names: str) -> Path:
    """The folder that was asked for, or one below `runs/`."""
    return out or Path("runs") / "-".join(name for name in names if name)
