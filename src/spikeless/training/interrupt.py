"""SIGTERM and Ctrl-C as a wish that the loop reads between two steps."""

import signal
import threading
from types import FrameType

__all__ = ["Interrupt"]


class Interrupt:
    """While entered, the first signal sets `signal_name`; a second Ctrl-C stops at once.

    One that is entered inside another tells it too: what stops a run stops the grid that it is of.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interrupt":
        """Take over both signals; outside the main thread nothing can be taken over."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Give both signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_name and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name
        outer = getattr(self._before[signal.Signals(number)], "__self__", None)
        if isinstance(outer, Interrupt) and not outer.signal_name:
            outer._note(number, frame)
