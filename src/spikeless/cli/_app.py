"""The verbs, each from its own file."""

from importlib import metadata
from typing import Annotated

import typer

from spikeless.cli import audit, compare, data, eval, export, generate, report, runs, show, tev, train
from spikeless.cli import list as list_

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"spikeless {metadata.version('spikeless')}")
        raise typer.Exit


@app.callback()
def spikeless(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Language-model pre-training that does not blow up."""


app.command("audit")(audit.audit)
app.command("train")(train.train)
app.command("compare")(compare.compare)
app.command("eval")(eval.evaluate)
app.command("export")(export.export)
app.command("generate")(generate.generate)
app.add_typer(data.data, name="data")
app.command("show")(show.show)
app.command("list")(list_.list_parts)
app.command("runs")(runs.runs)
app.command("report")(report.report)
app.command("tev")(tev.tev)
