"""The command line: one verb per file. A user's mistake is one message and exit code 2, never a traceback.

The verbs are imported when `main` runs, since that takes seconds in which a user may press Ctrl-C.
"""

import signal
import sys
import warnings
from pathlib import Path

from spikeless.errors import SpikelessWarning, UnhealthyRun, UserError
from spikeless.training.interrupt import exit_code, stop_signals

__all__ = ["main"]


def main() -> None:
    """Run the command line.

    Exit codes: 0 fine, 1 a run or a model is unhealthy, 2 wrong use or bad input, 128 + N stopped by signal N.
    """
    before = {number: signal.signal(number, _stop) for number in stop_signals()}
    show_others = warnings.showwarning

    def show_warning(message, category, *rest, **keywords):  # type: ignore[no-untyped-def]
        if issubclass(category, SpikelessWarning):
            _say(f"warning: {message}", "yellow")
        else:
            show_others(message, category, *rest, **keywords)

    warnings.showwarning = show_warning
    sys.path.insert(0, str(Path.cwd()))  # my_lab.tricks:Foo from where the user stands
    try:
        from spikeless.cli._app import app

        app()
    except _Stopped as stopped:
        _say(f"stopped by {stopped.signal_name}", "yellow")
        sys.exit(exit_code(stopped.signal_name))
    except UserError as error:
        _say(f"error: {error}", "red")
        sys.exit(2)
    except UnhealthyRun as error:
        _say(f"unhealthy: {error}", "red")
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:  # of a path that the user named
        if error.filename is None:
            raise
        _say(f"error: {error.filename}: {error.strerror}", "red")
        sys.exit(2)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Stopped(BaseException):
    """A signal came while no run was listening; what is half-written is removed on the way out."""

    def __init__(self, signal_name: str) -> None:
        super().__init__(signal_name)
        self.signal_name = signal_name


def _stop(number: int, _: object) -> None:
    raise _Stopped(signal.Signals(number).name)


def _say(text: str, style: str) -> None:
    from rich.console import Console

    Console(stderr=True, soft_wrap=True, highlight=False, emoji=False).print(text, style=style, markup=False)
