"""`spikeless report`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from spikeless.cli._options import readable_runs
from spikeless.experiments.analysis.comparison import read_comparison
from spikeless.experiments.compare import COMPARISON, REPORT
from spikeless.experiments.presentation.page import write_comparison_page
from spikeless.experiments.presentation.terminal import render
from spikeless.report import summary_table, write_report

__all__ = ["report"]


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Run folders, folders of runs, or one that `spikeless compare` wrote (or its JSON file)."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="The file; report.html in the first folder if not given.")
    ] = None,
) -> None:
    """Write one self-contained report.html about runs or a comparison."""
    console = Console(highlight=False, emoji=False)
    numbers = _comparison_in(folders)
    if numbers is not None:
        comparison = read_comparison(numbers)
        target = out or numbers.parent / REPORT
        write_comparison_page(comparison, target)
        console.print(render(comparison))
    else:
        records = readable_runs(folders)
        target = out or folders[0] / REPORT
        title = records[0].recipe if len(records) == 1 else f"{len(records)} runs"
        write_report(records, target, title=title)
        console.print(summary_table(records))
    console.print(f"report: {target}", soft_wrap=True, markup=False)


def _comparison_in(folders: list[Path]) -> Path | None:
    """The numbers of a comparison, if the one path that was given is such a file or holds one."""
    if len(folders) != 1:
        return None
    (given,) = folders
    if given.suffix == ".json":
        return given
    return given / COMPARISON if (given / COMPARISON).is_file() else None
