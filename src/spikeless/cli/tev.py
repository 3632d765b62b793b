"""`spikeless tev`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spikeless.cli._options import JSONFile, write_or_print
from spikeless.errors import UserError
from spikeless.evaluation.tev import EmbeddingVariability, Source, find_sources, measure, write_tev_page
from spikeless.evaluation.tev.summary import remarks, rows

__all__ = ["tev"]

TITLES = {  # narrow enough for 80 columns
    "parameters": "para-\nmeters",
    "table": "table",
    "mean": "TEV\nraw μ",
    "std": "\nσ",
    "entry": "on the\nway in",
    "effective_mean": "TEV\neff. μ",
    "effective_std": "\nσ",
}
WORDS = ("checkpoint", "dtype", "head", "entry")


def tev(
    paths: Annotated[
        list[str],
        typer.Argument(help="Hugging Face folders, .safetensors files, run folders, checkpoints, or hub names."),
    ],
    tensor: Annotated[str | None, typer.Option("--tensor", help="The embedding's name, if it is not found.")] = None,
    json_file: JSONFile = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Write the histogram as one HTML file.")] = None,
) -> None:
    """Print the token embedding variability of checkpoints."""
    sources = [source for path in paths for source in _sources(path)]
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


def _sources(path: str) -> list[Source]:
    try:
        return find_sources(path)
    except UserError as error:
        raise UserError(str(error) if path in str(error) else f"{path}: {error}") from None


def _table(readings: list[EmbeddingVariability]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    cells = rows(readings)
    longest = max(len(row["checkpoint"]) for row in cells)
    for key in cells[0]:
        justify = "left" if key in WORDS else "right"
        least = (10 if "step" in cells[0] else min(max(longest, 10), 13)) if key == "checkpoint" else None
        table.add_column(TITLES.get(key, key), justify=justify, overflow="fold", min_width=least)
    for row in cells:
        table.add_row(*map(escape, row.values()))
    return table
