"""The verbs, each from its own file."""

from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from spikeless.cli import audit, compare, data, eval, export, generate, report, runs, show, tev, train
from spikeless.cli import list as list_

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


class _Verb(TyperCommand):
    """A verb that says where an argument too many may come from."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # the library's own, of a private module
            if "extra argument" in (message := getattr(error, "message", "")):
                error.message = f"{message}; put patterns and values with spaces into quotation marks"  # type: ignore
            raise


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


app.command("audit", cls=_Verb)(audit.audit)
app.command("train", cls=_Verb)(train.train)
app.command("compare", cls=_Verb)(compare.compare)
app.command("eval", cls=_Verb)(eval.evaluate)
app.command("export", cls=_Verb)(export.export)
app.command("generate", cls=_Verb)(generate.generate)
app.add_typer(data.data, name="data")
app.command("show", cls=_Verb)(show.show)
app.command("list", cls=_Verb)(list_.list_parts)
app.command("runs", cls=_Verb)(runs.runs)
app.command("report", cls=_Verb)(report.report)
app.command("tev", cls=_Verb)(tev.tev)
