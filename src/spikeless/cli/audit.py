"""`spikeless audit`."""

import dataclasses
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from spikeless.cli._options import JSONFile, Set, With, write_or_print
from spikeless.config import parse_calls
from spikeless.errors import UserError, nearest
from spikeless.optim.adamw import AdamW
from spikeless.preflight.audit import audit as audit_model
from spikeless.preflight.baseline import accept
from spikeless.preflight.difference import difference, difference_json
from spikeless.preflight.junit import write_junit
from spikeless.preflight.page import write_audit_page
from spikeless.preflight.result import FailOn, read_audit
from spikeless.preflight.terminal import render
from spikeless.preflight.watch import Watch

__all__ = ["audit"]

_FAIL_ON: dict[str, FailOn] = {"fail": "fail", "warn": "warn", "never": "never"}


def audit(
    target: Annotated[
        str,
        typer.Argument(
            help="A recipe, a run folder or checkpoint, a Hugging Face folder, a config.json, MODULE:FACTORY "
            "(runs your code), or a hub name."
        ),
    ],
    techniques: With = None,
    assignments: Set = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Text to look at, as for train, or random; docstrings of this machine, or random "
            "tokens where the model has no tokenizer, if not given.",
        ),
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Sequences; 2 if not given.")] = None,
    seq: Annotated[int | None, typer.Option("--seq", help="Tokens of each; 512 or the context length.")] = None,
    optimizer: Annotated[
        str | None, typer.Option("--optimizer", help="The planned one: adamw, or adamw(eps=1e-6,weight_decay=0.1).")
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="The planned peak learning rate.")] = None,
    steps: Annotated[
        int, typer.Option("--steps", help="Steps of a short learning-rate range test; 0 for none.", min=0)
    ] = 0,
    part: Annotated[
        list[str] | None,
        typer.Option("--part", help="Where a part is, if it is not found: blocks=PATH, embedding=PATH, head=PATH."),
    ] = None,
    trained: Annotated[
        bool | None, typer.Option("--trained/--initial", help="What the weights are, if the norms do not tell.")
    ] = None,
    theory_only: Annotated[
        bool, typer.Option("--theory-only", help="Only what needs no activations; no weight is drawn or read.")
    ] = False,
    against: Annotated[
        str | None, typer.Option("--against", help="Another target; show the difference of the two.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="The --json file of an earlier audit, whose findings are known.")
    ] = None,
    json_file: JSONFile = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write the report as one HTML file.")] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write the findings as JUnit XML.")] = None,
    fail_on: Annotated[
        str, typer.Option("--fail-on", help="Exit with 1 at a finding of this severity: fail, warn, or never.")
    ] = "fail",
) -> None:
    """Tell before the run whether a model will be stable, and what to change."""
    level = _FAIL_ON.get(fail_on)
    if level is None:
        raise UserError(f"--fail-on {fail_on!r} is unknown; {nearest(fail_on, _FAIL_ON, 'level')}")
    if against is not None and (html or junit):
        raise UserError("--html and --junit are about one model; leave --against out, or use --json")
    if baseline is not None:
        read_audit(baseline)  # so that a wrong file is told at once
    planned, planned_lr = (None, None) if optimizer is None else _optimizer(optimizer)
    console = Console(highlight=False, emoji=False)
    options: dict[str, Any] = {
        "data": data,
        "sequences": batch,
        "tokens": seq,
        "lr": planned_lr if lr is None else lr,
        "optimizer": planned,
        "range_steps": steps,
        "trained": trained,
        "theory_only": theory_only,
        "command": shlex.join(["spikeless", *sys.argv[1:]]),
    }
    with _progress() as watch:
        report = audit_model(
            target,
            techniques=techniques or (),
            assignments=assignments or (),
            parts=_parts(part or ()),
            watch=watch,
            **options,
        )
        other = None if against is None else audit_model(against, watch=watch, **options)
    if baseline is not None:
        report = accept(report, baseline)
    if html is not None:
        write_audit_page(report, html)
    if junit is not None:
        write_junit(report, junit, level)
    numbers = report.to_json() if other is None else difference_json(report, other)
    if not write_or_print(json_file, numbers):
        console.print(render(report) if other is None else difference(report, other))
        for what, path in (("report", html), ("JUnit", junit), ("JSON", json_file)):
            if path is not None:
                console.print(f"{what}: {path}", soft_wrap=True, markup=False)
    raise typer.Exit(report.exit_code(level))


def _optimizer(text: str) -> tuple[AdamW, float | None]:
    """AdamW with the arguments that were given, and the learning rate if it is one of them."""
    calls = parse_calls(text)
    if len(calls) != 1 or calls[0].name.lower() != "adamw":
        raise UserError(f"--optimizer {text!r} is unknown; write adamw or adamw(eps=1e-6,weight_decay=0.1)")
    built = dataclasses.replace(calls[0], name="AdamW").build("optim.adamw")
    return built, built.lr if "lr" in calls[0].arguments else None


def _parts(given: list[str] | tuple[()]) -> dict[str, str]:
    parts: dict[str, str] = {}
    for each in given:
        name, equals, path = each.partition("=")
        if not equals or not path:
            raise UserError(f"--part {each!r} is malformed; write NAME=PATH, such as blocks=model.layers")
        parts[name.strip()] = path.strip()
    return parts


@contextmanager
def _progress() -> Iterator[Watch]:
    console = Console(stderr=True, highlight=False, emoji=False)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("reading", total=None)

        def watch(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total)

        yield watch
