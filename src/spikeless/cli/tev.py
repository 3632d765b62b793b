"""`spikeless tev`."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from spikeless.cli._options import JSONFile, Outside, write_or_print
from spikeless.config import named_modules
from spikeless.errors import UserError
from spikeless.evaluation.tev import EmbeddingVariability, Source, find_sources, measure, write_tev_page
from spikeless.evaluation.tev.summary import remarks, rows
from spikeless.report.fitting import FittingTable

__all__ = ["tev"]

TITLES = {
    "checkpoint": "checkpoint",
    "step": "step",
    "parameters": "para-\nmeters",
    "table": "table",
    "dtype": "dtype",
    "head": "head",
    "mean": "TEV\nraw μ",
    "std": "TEV\nraw σ",
    "entry": "on the\nway in",
    "effective_mean": "TEV\neff. μ",
    "effective_std": "TEV\neff. σ",
}
LEAST = ("parameters", "std", "effective_std", "dtype", "head", "table", "entry")
"""Columns that a narrow terminal does without, the least important one first."""


def tev(
    paths: Annotated[
        list[str],
        typer.Argument(help="Hugging Face folders, .safetensors files, run folders, checkpoints, or hub names."),
    ],
    tensor: Annotated[str | None, typer.Option("--tensor", help="The embedding's name, if it is not found.")] = None,
    outside: Outside = None,
    json_file: JSONFile = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Write the histogram as one HTML file.")] = None,
) -> None:
    """Print the token embedding variability of checkpoints."""
    sources = [source for path in paths for source in _sources(path, named_modules(outside or ()))]
    readings = [measure(source, tensor) for source in sources]
    console = Console(highlight=False, emoji=False)
    if not write_or_print(json_file, [each.to_json() for each in readings]):
        console.print(_table(readings))
        for name, remark in remarks(readings):
            console.print(f"{name}: {remark}", markup=False, soft_wrap=True)
    if plot is not None:
        write_tev_page(readings, plot)
        if json_file != "-":
            console.print(f"plot: {plot}", markup=False, soft_wrap=True)


def _sources(path: str, trusted: Collection[str]) -> list[Source]:
    try:
        return find_sources(path, trusted)
    except UserError as error:
        raise UserError(str(error) if path in str(error) else f"{path}: {error}") from None


def _table(readings: list[EmbeddingVariability]) -> FittingTable:
    cells = rows(readings)
    titles = {key: title for key, title in TITLES.items() if key in cells[0]}
    return FittingTable(titles, cells, words=("checkpoint", "entry"), least=LEAST)
