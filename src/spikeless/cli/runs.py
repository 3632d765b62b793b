"""`spikeless runs`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from spikeless.report import find_runs, read_run, summary_table

__all__ = ["runs"]


def runs(folder: Annotated[Path, typer.Argument(help="Where to look.")] = Path("runs")) -> None:
    """List the runs in a folder."""
    Console(highlight=False, emoji=False).print(summary_table([read_run(path) for path in find_runs(folder)]))
