"""Signals that ask a run to stop, as a wish that the loop reads between two steps."""

import signal
import threading
from types import FrameType

__all__ = ["Interrupt", "exit_code", "stop_signals"]


def stop_signals() -> list[signal.Signals]:
    """Ctrl-C, SIGTERM, SIGHUP of a terminal that closes, SIGUSR1 of a job queue whose time is nearly up.

    The last two are left out where this process was started to ignore them: under `nohup` a run outlives its terminal.
    """
    others = [signal.SIGHUP, signal.SIGUSR1]
    return [signal.SIGINT, signal.SIGTERM, *(each for each in others if signal.getsignal(each) != signal.SIG_IGN)]


def exit_code(signal_name: str) -> int:
    """The exit code that says which signal stopped a process, as shells count."""
    return 128 + signal.Signals[signal_name]


class Interrupt:
    """While entered, the first signal sets `signal_name`; a second Ctrl-C stops at once.

    One that is entered inside another tells it too: what stops a run stops the grid that it is of.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interrupt":
        """Take over the signals; outside the main thread none can be taken over."""
        if threading.current_thread() is threading.main_thread():
            for number in stop_signals():
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        outer = self._before[signal.Signals(number)]
        if self.signal_name and number == signal.SIGINT:
            if callable(outer):
                outer(number, frame)
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name
        outer = getattr(outer, "__self__", None)
        if isinstance(outer, Interrupt) and not outer.signal_name:
            outer._note(number, frame)
