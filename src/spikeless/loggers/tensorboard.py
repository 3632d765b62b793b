"""TensorBoard event files."""

import time
from pathlib import Path

from torch.utils.tensorboard.writer import SummaryWriter

from spikeless.loggers import Row

__all__ = ["TensorBoard"]


class TensorBoard:
    """Writes every number of a row as a scalar, below `tensorboard/`."""

    def __init__(self, folder: Path, last_step: int) -> None:
        """Open; TensorBoard is told to forget what stands after `last_step`."""
        events = folder / "tensorboard"
        _wait_for_a_new_second(events)
        self._writer = SummaryWriter(str(events), purge_step=last_step + 1)

    def log(self, row: Row) -> None:
        """Add a row."""
        for key, value in row.items():
            if key != "step":
                self._writer.add_scalar(key, value, int(row["step"]))

    def flush(self) -> None:
        """Bring the events to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


def _wait_for_a_new_second(events: Path) -> None:
    """Files are read in the order of their names, which is that of their writing if they differ in the second."""
    while any(path.name.startswith(f"events.out.tfevents.{int(time.time())}.") for path in events.glob("events.*")):
        time.sleep(0.05)
