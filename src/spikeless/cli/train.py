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
    Seed,
    Set,
    Steps,
    Tokenizer,
    With,
    described_run,
    output_folder,
)
from spikeless.cli._progress import LiveLine, live_progress
from spikeless.config import diff, modules_of, names_in, replace_at
from spikeless.data import check_data, parse_tokenizer
from spikeless.errors import UserError
from spikeless.report import summary_table
from spikeless.run import RunConfig
from spikeless.training.environment import resolve_device
from spikeless.training.estimate import estimate
from spikeless.training.idle_settings import say_idle_settings
from spikeless.training.interrupt import exit_code
from spikeless.training.origin import Origin, parse_origin
from spikeless.training.run_folder import RunFolder, label_of
from spikeless.words import counted, duration, scaled, size

__all__ = ["train"]


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe; not needed to resume a run, or for a branch of one.")
    ] = None,
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
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest whole checkpoint; --out is enough.")
    ] = False,
    branch_from: Annotated[
        str | None,
        typer.Option("--branch-from", metavar="RUN@STEP", help="Begin with the state of another run's checkpoint."),
    ] = None,
    device: Device = None,
    precision: PrecisionOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what the run would cost.")] = False,
) -> None:
    """Train a recipe, with techniques, on real text."""
    console = Console(highlight=False, emoji=False, soft_wrap=True, markup=False)
    origin = None if branch_from is None else parse_origin(branch_from)
    described_by, out = _what_and_where(recipe, out, resume, origin)
    run = described_run(
        described_by,
        techniques,
        assignments,
        data,
        tokenizer,
        device,
        precision,
        init_from,
        out if resume else None,
        steps=steps,
        lr=lr,
        seed=seed,
    )
    if dry_run:
        say_idle_settings(run)
        console.print(_cost(run))
        return
    check_data(run.data.spec)
    folder = output_folder(out, run.recipe, "-".join(run.techniques))
    if resume and RunFolder(folder).exists:
        if RunFolder(folder).status == {"state": "finished", "step": run.steps, "message": ""}:
            console.print(f"{folder} has finished its {counted(run.steps, 'step')}; --steps trains it for longer")
    elif origin:
        was = origin.run.config(modules_of(run))
        changes = ", ".join(map(str, diff(was, run)))
        console.print(f"a branch of {origin.found()}: {changes or 'nothing is changed'}")
    tokens = run.data.batch_size * run.data.sequence_length
    if not console.is_terminal:  # before the data are read, which may take long
        what = f"{run.recipe}, {label_of(run)}: {counted(run.steps, 'step')} of {counted(tokens, 'token')}"
        console.print(f"{what} on {run.data.spec}, into {folder}")
    with live_progress(Console(highlight=False, emoji=False)) as progress:
        line = LiveLine(progress, label_of(run), run.steps, tokens)
        record = spikeless.training.loop.train(run, folder, resume=resume, branch_from=branch_from, loggers=[line])
    Console(highlight=False, emoji=False).print(summary_table([record]))
    for source, described in record.data.items():
        console.print(f"{source}: {described}")
    console.print(f"report: {folder / 'report.html'}")
    summary = record.summary()
    if summary.state == "interrupted":
        console.print(f"interrupted at step {summary.steps}; to go on: spikeless train --resume --out {folder}")
        raise typer.Exit(exit_code(record.status["message"]))


def _what_and_where(
    recipe: str | None, out: Path | None, resume: bool, origin: Origin | None
) -> tuple[str | Path, Path | None]:
    """What the options change, a recipe or the run that a folder holds, and the folder to train in, if it is said.

    Raises:
        UserError: neither is named, or both.
    """
    if origin:
        if recipe is not None:
            raise UserError(f"--branch-from {origin} says what the run is; leave out the recipe {recipe!r}")
        if out is None:
            raise UserError("--branch-from needs --out, the folder of the new run")
        begun = resume and RunFolder(out).exists
        return (out if begun else origin.found().folder), out
    if recipe is not None:
        is_run = resume and out is None and recipe not in names_in("recipes") and RunFolder(Path(recipe)).exists
        return (Path(recipe), Path(recipe)) if is_run else (recipe, out)
    if not resume:
        raise UserError("name a recipe (`spikeless list recipes` shows them), or resume a run: --resume --out RUN")
    if out is None or not RunFolder(out).exists:
        raise UserError(f"{out or '--resume'} names no run; write --resume --out RUN, or a recipe, to begin one")
    return out, out


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
