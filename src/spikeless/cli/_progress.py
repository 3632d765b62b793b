"""How a run shows itself: a live line per run in a terminal, plain lines elsewhere."""

import math
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from spikeless.loggers import Row

__all__ = ["LiveLine", "live_progress"]

SECONDS_BETWEEN_LINES = 10.0


def live_progress(console: Console) -> Progress:
    """A progress display with a line for each run."""
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


class LiveLine:
    """A logger that shows the newest numbers of one run."""

    def __init__(self, progress: Progress, label: str, steps: int) -> None:
        self._progress, self._label, self._steps = progress, label, steps
        self._task = progress.add_task(label, total=steps, numbers="starting")
        self._said = time.monotonic()
        self._epoch, self._val_loss = 0, math.nan

    def log(self, row: Row) -> None:
        """Show a row."""
        self._val_loss = row.get("val_loss", self._val_loss)
        if math.floor(row.get("epoch", 0)) > self._epoch:
            self._epoch = math.floor(row["epoch"])
            self._progress.console.print(
                f"{self._label}: epoch {self._epoch} is complete at step {row['step']}", markup=False
            )
        text = f"loss {row['loss']:.3f}  " if "loss" in row else ""
        text += "" if math.isnan(self._val_loss) else f"val {self._val_loss:.3f}  "
        if "grad_norm" in row:
            text += f"grad norm {row['grad_norm']:.2f}  {row['tokens_per_second']:,.0f} tok/s"
        self._progress.update(self._task, completed=row["step"], numbers=text)
        if self._progress.disable and time.monotonic() - self._said > SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            self._progress.console.print(
                f"{self._label}: step {row['step']}/{self._steps}  {text}", highlight=False, markup=False
            )

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Leave the line as it stands."""
        self._progress.refresh()
