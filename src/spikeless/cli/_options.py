"""Options that several verbs share, and the run that they describe."""

import json
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from spikeless.config import replace_at
from spikeless.data import prepared_tokenizer
from spikeless.errors import SpikelessWarning, UserError, nearest
from spikeless.files import write_json
from spikeless.recipes import compose
from spikeless.run import RunConfig

__all__ = [
    "Data",
    "Device",
    "JSONFile",
    "PrecisionOption",
    "Recipe",
    "Set",
    "Tokenizer",
    "With",
    "described_run",
    "output_folder",
    "write_or_print",
]

Recipe = Annotated[str, typer.Argument(help="A recipe; `spikeless list recipes` shows them.")]
With = Annotated[
    list[str] | None,
    typer.Option("--with", help="A technique, e.g. scaled_embed or mlra(rank=16); may be repeated or joined by +."),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="A setting as path=value, e.g. optim.lr=1e-3; may be repeated.")
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="pydocs, text:GLOB, jsonl:GLOB, parquet:GLOB, hf:NAME_OR_DIR, shards:DIR or mix:0.7*SPEC+0.3*SPEC.",
    ),
]
Tokenizer = Annotated[str | None, typer.Option("--tokenizer", help="bpe:N, bytes, or hf:NAME_OR_DIR.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
PrecisionOption = Annotated[
    str | None, typer.Option("--precision", help="fp32, bf16, or auto: measure a step of each and take the faster.")
]

JSONFile = Annotated[str | None, typer.Option("--json", help="Write the numbers to this file; - prints them.")]

_PRECISIONS = ("fp32", "bf16", "auto")


def described_run(
    recipe: str,
    techniques: list[str] | None,
    assignments: list[str] | None,
    data: str | None = None,
    tokenizer: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    init_from: str | None = None,
    begun: Path | None = None,
) -> RunConfig:
    """The run that a command line describes.

    Raises:
        UserError: what is wrong with it.

    Warns:
        SpikelessWarning: what it begins from has another tokenizer.
    """
    if precision is not None and precision not in _PRECISIONS:
        raise UserError(f"--precision {precision!r} is unknown; {nearest(precision, _PRECISIONS, 'precision')}")
    chosen = any(each.partition("=")[0].strip() == "data.tokenizer" for each in assignments or ())
    if data is not None and tokenizer is None and not chosen and init_from is None:
        tokenizer = prepared_tokenizer(data)
    given = {"data.spec": data, "data.tokenizer": tokenizer, "device": device, "precision": precision}
    run = compose(recipe, techniques or (), assignments or (), init_from, begun)
    run = replace_at(run, {path: value for path, value in given.items() if value is not None})
    if init_from is not None and run.data.tokenizer != f"hf:{init_from}":
        message = f"the tokenizer {run.data.tokenizer} replaces that of {init_from}: ids may mean other tokens"
        warnings.warn(message, SpikelessWarning, 2)
    return run


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
