"""`spikeless train`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import spikeless.training.loop
from spikeless.cli._options import (
    Data,
    Device,
    LearningRate,
    PrecisionOption,
    Recipe,
    Seed,
    Set,
    Steps,
    Tokenizer,
    With,
    described_run,
    output_folder,
)
from spikeless.cli._progress import LiveLine, live_progress
from spikeless.config import replace_at
from spikeless.data import check_data, parse_tokenizer
from spikeless.report import summary_table
from spikeless.run import RunConfig
from spikeless.training.environment import resolve_device
from spikeless.training.estimate import estimate
from spikeless.training.interrupt import exit_code
from spikeless.training.run_folder import label_of
from spikeless.words import counted, duration, scaled, size

__all__ = ["train"]


def train(
    recipe: Recipe,
    techniques: With = None,
    assignments: Set = None,
    data: Data = None,
    tokenizer: Tokenizer = None,
    steps: Steps = None,
    lr: LearningRate = None,
    seed: Seed = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The run's folder; runs/RECIPE-TECHNIQUES if not given.")
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option("--init-from", help="Begin with the model, weights and tokenizer of a Hugging Face folder."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest whole checkpoint.")] = False,
    device: Device = None,
    precision: PrecisionOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what the run would cost.")] = False,
) -> None:
    """Train a recipe, with techniques, on real text."""
    console = Console(highlight=False, emoji=False)
    begun = out if resume else None
    run = described_run(
        recipe,
        techniques,
        assignments,
        data,
        tokenizer,
        device,
        precision,
        init_from,
        begun,
        steps=steps,
        lr=lr,
        seed=seed,
    )
    if dry_run:
        console.print(_cost(run))
        return
    check_data(run.data.spec)
    folder = output_folder(out, run.recipe, "-".join(run.techniques))
    tokens = run.data.batch_size * run.data.sequence_length
    if not console.is_terminal:  # before the data are read, which may take long
        what = f"{run.recipe}, {label_of(run)}: {counted(run.steps, 'step')} of {counted(tokens, 'token')}"
        console.print(f"{what} on {run.data.spec}, into {folder}", soft_wrap=True, markup=False)
    with live_progress(console) as progress:
        line = LiveLine(progress, label_of(run), run.steps, tokens)
        record = spikeless.training.loop.train(run, folder, resume=resume, loggers=[line])
    console.print(summary_table([record]))
    for source, described in record.data.items():
        console.print(f"{source}: {described}", soft_wrap=True, markup=False)
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True, markup=False)
    summary = record.summary()
    if summary.state == "interrupted":
        console.print(
            f"interrupted at step {summary.steps}; go on with --resume --out {folder}", soft_wrap=True, markup=False
        )
        raise typer.Exit(exit_code(record.status["message"]))


def _cost(run: RunConfig) -> Table:
    if run.model.vocab_size is None:
        vocabulary = parse_tokenizer(run.data.tokenizer).vocab_size
        run = replace_at(run, {"model.vocab_size": vocabulary})
    cost = estimate(run, resolve_device(run.device))
    table = Table("quantity", "value", title=f"{run.recipe}, {label_of(run)}: nothing is trained", title_justify="left")
    for name, value in (
        ("parameters", f"{cost.parameters:,}"),
        ("tokens per step", f"{cost.tokens_per_step:,}"),
        ("steps", f"{run.steps:,}"),
        ("tokens", f"{cost.tokens:,}"),
        ("memory while training, fp32", size(cost.memory)),
        ("disk per checkpoint", size(cost.checkpoint)),
        ("FLOPs per step", scaled(cost.flops_per_step, "FLOP")),
        ("time per step (estimate)", duration(cost.seconds_per_step)),
        ("time in all (estimate)", duration(cost.seconds_per_step * run.steps)),
        ("estimated from", cost.source),
    ):
        table.add_row(name, value)
    return table
