"""`spikeless export`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import spikeless.training.export
from spikeless.cli._options import Outside
from spikeless.config import named_modules
from spikeless.words import counted, number

__all__ = ["export"]


def export(
    path: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A run folder, or one checkpoint in it.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to make; it must not exist.")],
    dtype: Annotated[str, typer.Option("--dtype", help="Type of the stored weights: fp32, bf16 or fp16.")] = "fp32",
    max_shard_size: Annotated[
        str, typer.Option("--max-shard-size", help="Weights larger than this go into several files.")
    ] = "5GB",
    outside: Outside = None,
) -> None:
    """Write a checkpoint as a Hugging Face folder, verified before it appears."""
    console = Console(highlight=False, emoji=False, markup=False, soft_wrap=True)
    trusted = named_modules(outside or ())
    found = spikeless.training.export.export(path, out, dtype=dtype, max_shard_size=max_shard_size, trusted=trusted)
    console.print(f"read back with {found.reader}, {counted(found.tokens, 'token')}")
    console.print(f"largest difference of a logit: {number(found.difference)} (tolerance {number(found.tolerance)})")
    if found.rounding:
        console.print(f"storing {dtype} instead of fp32 changes a logit by up to {number(found.rounding)}")
    console.print(f"exported: {out}")
