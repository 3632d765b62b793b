"""`spikeless report`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from spikeless.report import find_runs, read_run, summary_table, write_report

__all__ = ["report"]


def report(
    folders: Annotated[list[Path], typer.Argument(help="Run folders, or folders of runs.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The file; report.html in the first folder if not given.")
    ] = None,
) -> None:
    """Write one self-contained report.html about runs."""
    console = Console(highlight=False)
    paths = list(dict.fromkeys(path for folder in folders for path in find_runs(folder)))
    records = [read_run(path) for path in paths]
    target = out or folders[0] / "report.html"
    title = records[0].recipe if len(records) == 1 else f"{len(records)} runs"
    write_report(records, target, title=title)
    console.print(summary_table(records))
    console.print(f"report: {target}", soft_wrap=True, markup=False)
