"""metrics.jsonl: one JSON object per step, always written."""

import json
import math
import os
from pathlib import Path
from typing import Any

from spikeless.files import write_text
from spikeless.loggers import Row

__all__ = ["JSONLines"]


class JSONLines:
    """Appends to `metrics.jsonl`; non-finite numbers are the strings "NaN", "Infinity", "-Infinity"."""

    def __init__(self, folder: Path, last_step: int) -> None:
        """Open, and cut what stands after `last_step` or was half-written when a run died."""
        path = folder / "metrics.jsonl"
        if path.exists():
            write_text(path, "".join(line for line in _whole_lines(path) if json.loads(line)["step"] <= last_step))
        self._file = path.open("a", encoding="utf-8")

    def log(self, row: Row) -> None:
        """Append a row."""
        self._file.write(json.dumps({key: _portable(value) for key, value in row.items()}, allow_nan=False) + "\n")
        self._file.flush()

    def flush(self) -> None:
        """Bring the file to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._file.close()


def _whole_lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    return lines if not lines or lines[-1].endswith("\n") else lines[:-1]


def _portable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
