"""`spikeless runs`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from spikeless.cli._options import JSONFile, readable_runs, write_or_print
from spikeless.files import portable
from spikeless.report import run_rows, runs_table

__all__ = ["runs"]


def runs(
    folder: Annotated[Path, typer.Argument(help="Where to look, at any depth.")] = Path("runs"),
    json_file: JSONFile = None,
) -> None:
    """List the runs below a folder: where each lies, what tells it apart, how it stands."""
    records = readable_runs([folder])
    if not write_or_print(json_file, portable(run_rows(records))):
        Console(highlight=False, emoji=False).print(runs_table(records, folder))
