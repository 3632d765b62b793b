"""How a run shows itself: a live line in a terminal, plain lines now and then in a log file."""

import math
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from spikeless.loggers import Row
from spikeless.words import duration, number

__all__ = ["LiveLine", "live_progress"]

SECONDS_BETWEEN_LINES = (10.0, 60.0)
"""Between two lines of a log file, of a young run and of an old one [s]."""
AGE_SHARE = 0.05
"""In between, such a share of the run's age [dimensionless]."""
SECONDS_BETWEEN_VALIDATIONS = 1.0
"""A validation loss that comes sooner after a line has none of its own [s]."""


def live_progress(console: Console) -> Progress:
    """A progress display with a line for each run, narrow enough for 80 columns."""
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=8),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}", markup=False),
        console=console,
        disable=not console.is_terminal,
    )


class LiveLine:
    """A logger that shows the newest numbers of one run, its rate and the time left.

    In a log file the first step has a line at once, then there is one every ten seconds, every minute of an old run,
    and one wherever the validation loss was measured.
    """

    def __init__(self, progress: Progress, label: str, steps: int, tokens_per_step: int) -> None:
        self._progress, self._label, self._steps, self._tokens_per_step = progress, label, steps, tokens_per_step
        self._task = progress.add_task(label, total=steps, numbers="starting")
        self._began = time.monotonic()
        self._first: tuple[int, float] | None = None  # the first training step that was seen, and when
        self._said = -math.inf
        self._epoch = 0

    def log(self, row: Row) -> None:
        """Show a row."""
        now, step = time.monotonic(), int(row["step"])
        if math.floor(row.get("epoch", 0)) > self._epoch:
            self._epoch = math.floor(row["epoch"])
            self._say(f"epoch {self._epoch} is complete at step {step}")
        due = self._is_due(row, step, now)
        where, loss, validation = f"step {step:,}/{self._steps:,}", _training(row), _validation(row)
        rate = f"{row['tokens_per_second']:,.0f} tok/s" if loss else ""
        left = f"{duration(self._seconds_left(row, step, now))} left" if loss and step < self._steps else ""
        self._progress.update(self._task, completed=step, numbers=_joined(loss, rate, left))
        if due:
            self._said = now
            norm = f"grad norm {number(row['grad_norm'])}" if loss else ""
            every = (where, loss, norm, rate, validation, left)
            self._say(_joined(*(every if self._progress.disable else (where, validation))))

    def _is_due(self, row: Row, step: int, now: float) -> bool:
        """Whether a row gets a line that stays."""
        since, last, validation = now - self._said, step == self._steps, "val_loss" in row
        if validation and (last or since > SECONDS_BETWEEN_VALIDATIONS):
            return True
        if not self._progress.disable:  # the live line shows it
            return False
        shortest, longest = SECONDS_BETWEEN_LINES
        pause = min(longest, max(shortest, AGE_SHARE * (now - self._began)))
        return last or since > pause or ("loss" in row and self._first is None)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Leave the line as it stands."""
        self._progress.refresh()

    def _say(self, text: str) -> None:
        self._progress.console.print(f"{self._label}: {text}", markup=False, highlight=False, soft_wrap=True)

    def _seconds_left(self, row: Row, step: int, now: float) -> float:
        """By the pace so far, evaluations and checkpoints included; after the first step by that step alone."""
        left = self._steps - step
        if self._first is None:
            self._first = step, now
            return left * self._tokens_per_step / row["tokens_per_second"]
        first, since = self._first
        return left * (now - since) / (step - first)


def _training(row: Row) -> str:
    return f"loss {row['loss']:.3f}  lr {number(row['lr'])}" if "loss" in row else ""


def _validation(row: Row) -> str:
    if "val_loss" not in row:
        return ""
    bits = f" ({row['val_bits_per_byte']:.3f} bits/byte)" if "val_bits_per_byte" in row else ""
    return f"val {row['val_loss']:.3f}{bits}"


def _joined(*texts: str) -> str:
    return "  ".join(filter(None, texts))
