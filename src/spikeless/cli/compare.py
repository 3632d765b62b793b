"""`spikeless compare`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import spikeless.experiments.compare
from spikeless.cli._options import Data, Device, PrecisionOption, Recipe, Set, Tokenizer, described_run, output_folder
from spikeless.cli._progress import LiveLine, live_progress
from spikeless.experiments.compare import Arm
from spikeless.report import summary_table

__all__ = ["compare"]


def compare(
    recipe: Recipe,
    arms: Annotated[
        str, typer.Option("--arms", help='Arms separated by ";": "baseline; mlra; mlra(rank=16)+scaled_embed".')
    ],
    assignments: Set = None,
    data: Data = None,
    tokenizer: Tokenizer = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the runs; runs/compare-RECIPE if not given.")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="Runs per arm, with seeds 0, 1, ….")] = 1,
    device: Device = None,
    precision: PrecisionOption = None,
) -> None:
    """Train arms on the same data in the same order, and report how they did. Run again to resume."""
    console = Console(highlight=False)
    run = described_run(recipe, None, None, data, tokenizer, device, precision)
    folder = output_folder(out, "compare", run.recipe)
    with live_progress(console) as progress:

        def watch(arm: Arm) -> LiveLine:
            return LiveLine(progress, arm.label + (f" seed {arm.run.seed}" if seeds > 1 else ""), arm.run.steps)

        command = shlex.join(["spikeless", *sys.argv[1:]])
        records = spikeless.experiments.compare.compare(
            run, arms, folder, seeds=seeds, assignments=assignments or (), command=command, watch=watch
        )
    console.print(summary_table(records))
    if records[-1].status.get("state") == "interrupted":
        console.print("interrupted; the same command goes on", soft_wrap=True)
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True, markup=False)
