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
from spikeless.evaluation.tev import EmbeddingVariability, Source, find_sources, measure

__all__ = ["tev"]

EMPTY = "–"
HEADS = {True: "tied", False: "own", None: EMPTY}


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
    if not write_or_print(json_file, [each.to_json() for each in readings]):
        console = Console(highlight=False)
        console.print(_table(readings))
        for line in _remarks(readings):
            console.print(line, markup=False, soft_wrap=True)


def _sources(path: str) -> list[Source]:
    try:
        return find_sources(path)
    except UserError as error:
        raise UserError(str(error) if path in str(error) else f"{path}: {error}") from None


def _table(readings: list[EmbeddingVariability]) -> Table:
    """One row a checkpoint, as given; narrow enough for 80 columns."""
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    steps = any(each.step is not None for each in readings)
    titles = ["checkpoint", *(["step"] if steps else []), "para-\nmeters", "table", "dtype", "head"]
    titles += ["TEV\nraw μ", "\nσ", "on the\nway in", "TEV ef-\nfect. μ", "\nσ"]
    for title in titles:
        left = title in ("checkpoint", "dtype", "head", "on the\nway in")
        table.add_column(escape(title), justify="left" if left else "right", overflow="fold")
    for each in readings:
        step = [EMPTY if each.step is None else str(each.step)] if steps else []
        cells = [each.label, *step, _count(each.parameters), f"{each.rows}×{each.width}", each.dtype, HEADS[each.tied]]
        cells += [_number(each.mean), _number(each.std), each.entry]
        cells += [_number(each.effective_mean), _number(each.effective_std)]
        table.add_row(*map(escape, cells))
    return table


def _remarks(readings: list[EmbeddingVariability]) -> list[str]:
    """What the table has no room for, in a line each."""
    lines = []
    for each in readings:
        name = each.label if each.step is None else f"{each.label}, step {each.step}"
        if each.padded_rows:
            lines.append(
                f"{name}: {each.padded_rows} of {each.rows} rows lie beyond the {each.vocabulary} known ids; "
                f"without them raw μ {_number(each.unpadded_mean)}, σ {_number(each.unpadded_std)}"
            )
        if each.constant_rows:
            lines.append(f"{name}: rows of one value: {each.constant_rows}, of them zero: {each.zero_rows}")
        if each.non_finite_rows:
            lines.append(
                f"{name}: rows that are not finite: {each.non_finite_rows}; the numbers are those of the others"
            )
        lines += [f"{name}: {note}" for note in each.notes]
    return lines


def _number(value: float | None) -> str:
    return EMPTY if value is None else f"{value:.4g}"


def _count(number: int) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
