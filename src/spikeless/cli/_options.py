"""Options that several verbs share, and the run that they describe."""

from pathlib import Path
from typing import Annotated

import typer

from spikeless.config import replace_at
from spikeless.errors import UserError, nearest
from spikeless.recipes import compose
from spikeless.run import RunConfig

__all__ = ["Data", "Device", "PrecisionOption", "Recipe", "Set", "Tokenizer", "With", "described_run", "output_folder"]

Recipe = Annotated[str, typer.Argument(help="A recipe; `spikeless list recipes` shows them.")]
With = Annotated[
    list[str] | None,
    typer.Option("--with", help="A technique, e.g. scaled_embed or mlra(rank=16); may be repeated or joined by +."),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="A setting as path=value, e.g. optim.lr=1e-3; may be repeated.")
]
Data = Annotated[str | None, typer.Option("--data", help="The corpus: pydocs, or text:GLOB[,validation=GLOB].")]
Tokenizer = Annotated[str | None, typer.Option("--tokenizer", help="bpe:N or bytes.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
PrecisionOption = Annotated[
    str | None, typer.Option("--precision", help="fp32, bf16, or auto: measure a step of each and take the faster.")
]

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
    """
    if precision is not None and precision not in _PRECISIONS:
        raise UserError(f"--precision {precision!r} is unknown; {nearest(precision, _PRECISIONS, 'precision')}")
    given = {"data.spec": data, "data.tokenizer": tokenizer, "device": device, "precision": precision}
    run = compose(recipe, techniques or (), assignments or (), init_from, begun)
    return replace_at(run, {path: value for path, value in given.items() if value is not None})


def output_folder(out: Path | None, *names: str) -> Path:
    """The folder that was asked for, or one below `runs/`."""
    return out or Path("runs") / "-".join(name for name in names if name)
