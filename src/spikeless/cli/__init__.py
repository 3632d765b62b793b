"""The command line: one verb per file. A user's mistake is one message and exit code 2, never a traceback."""

import signal
import sys
import warnings
from pathlib import Path

import typer
from rich.console import Console

from spikeless.cli import audit, compare, data, eval, export, generate, report, runs, show, tev, train
from spikeless.cli import list as list_
from spikeless.errors import SpikelessWarning, UnhealthyRun, UserError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Language-model pre-training that does not blow up.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
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


def main() -> None:
    """Run the command line; exit codes: 0 fine, 1 a run or a model is unhealthy, 2 wrong use or bad input."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    sys.path.insert(0, str(Path.cwd()))  # my_lab.tricks:Foo from where the user stands
    show_others = warnings.showwarning

    def show_warning(message, category, *rest, **keywords):  # type: ignore[no-untyped-def]
        if issubclass(category, SpikelessWarning):
            errors.print(f"warning: {message}", style="yellow", markup=False)
        else:
            show_others(message, category, *rest, **keywords)

    warnings.showwarning = show_warning
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is half-written is removed
    try:
        app()
    except UserError as error:
        errors.print(f"error: {error}", style="red", markup=False)
        sys.exit(2)
    except UnhealthyRun as error:
        errors.print(f"unhealthy: {error}", style="red", markup=False)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:  # of a path that the user named
        if error.filename is None:
            raise
        errors.print(f"error: {error.filename}: {error.strerror}", style="red", markup=False)
        sys.exit(2)
