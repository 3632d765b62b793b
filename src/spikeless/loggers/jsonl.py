"""metrics.jsonl: one JSON object per step, always written."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from spikeless.errors import UserError
from spikeless.files import portable, write_text
from spikeless.loggers import Row

__all__ = ["JSONLines"]


class JSONLines:
    """Appends to `metrics.jsonl`; non-finite numbers are the strings "NaN", "Infinity", "-Infinity"."""

    def __init__(self, folder: Path, last_step: int) -> None:
        """Open, and cut what stands after `last_step` or was half-written when a run died.

        Raises:
            UserError: a whole line is not a row; the file is left as it is.
        """
        path = folder / "metrics.jsonl"
        if path.exists():
            kept = [line for number, line in _whole_lines(path) if _step(line, path, number) <= last_step]
            write_text(path, "".join(kept))
        self._file = path.open("a", encoding="utf-8")

    def log(self, row: Row) -> None:
        """Append a row."""
        self._file.write(json.dumps(portable(dict(row)), allow_nan=False) + "\n")
        self._file.flush()

    def flush(self) -> None:
        """Bring the file to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._file.close()


def _whole_lines(path: Path) -> Iterator[tuple[int, str]]:
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return ((number, line + "\n") for number, line in enumerate(lines[:-1], start=1))


def _step(line: str, path: Path, number: int) -> float:
    try:
        return json.loads(line)["step"] + 0
    except (ValueError, TypeError, KeyError):
        raise UserError(
            f"{path}, line {number}: expected a JSON object with an integer 'step', got {line[:60]!r}; "
            "remove the line, or choose another --out"
        ) from None
