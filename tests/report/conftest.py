import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from spikeless.report import RunRecord, read_run

WriteRun = Callable[..., Path]
MakeRun = Callable[..., RunRecord]


def rows_of_a_run(steps: int = 40, diverge: int | None = None) -> list[dict[str, Any]]:
    """A run's metrics as the trainer stores them; `diverge` is the step of its one NaN, the last one."""
    start = {"tev/mean": 0.02, "tev/std": 0.002, "tev/effective_mean": 0.14, "tev/effective_std": 0.01}
    rows: list[dict[str, Any]] = [{"step": 0, "val_loss": 7.6, **start, "tev/relative": 1.0}]
    for step in range(1, (diverge or steps) + 1):
        loss = 3 + 4 * math.exp(-step / 10)
        row = {"step": step, "loss": loss, "lr": 1e-3, "grad_norm": 1 + 1 / step, "tokens": 1024 * step}
        row["tokens_per_second"] = 100.0 if step <= 4 else 5000.0
        if step % 10 == 0:
            row |= {"val_loss": loss + 0.1, "tev/mean": 0.02 + step / 1e4, "tev/effective_mean": 0.15}
            row |= {"tev/relative": 1 + step / 200, "gradient_variance/free/embedding": 1e-8 / step}
        if step == diverge:
            row |= {"loss": "NaN", "grad_norm": "Infinity"}
        rows.append(row)
    return rows


@pytest.fixture
def training_rows() -> Callable[..., list[dict[str, Any]]]:
    """Makes the rows of a metrics file."""
    return rows_of_a_run


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Writes a run folder and returns it."""

    def write(
        name: str = "run",
        label: str = "baseline",
        rows: Iterable[dict[str, Any]] | None = None,
        state: str | None = "finished",
        seed: int = 0,
        tail: str = "",
        recipe: str = "deep_nano",
        record: dict[str, Any] | None = None,
        **config: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        techniques = [] if label == "baseline" else label.split("+")
        diff = [{"path": "model.embedding.multiplier", "old": 1.0, "new": 6.93}] if techniques else []
        config = {
            "steps": 40,
            "seed": seed,
            "optim": {"lr": 1e-3},
            "model": {"techniques": techniques},
        } | config
        run = {"spikeless": "0.1.0", "recipe": recipe, "label": label, "techniques": techniques}
        run |= {"config": config, "diff": diff, "parameters": 1234567, **(record or {})}
        (folder / "run.json").write_text(json.dumps(run))
        (folder / "environment.json").write_text(json.dumps({"torch": "2.9.0", "threads": 2}))
        if state:
            (folder / "status.json").write_text(json.dumps({"state": state, "step": 40, "message": ""}))
        lines = [json.dumps(row) + "\n" for row in (rows_of_a_run() if rows is None else rows)]
        (folder / "metrics.jsonl").write_text("".join(lines) + tail)
        return folder

    return write


@pytest.fixture
def make_run(write_run: WriteRun) -> MakeRun:
    """Writes a run folder and reads it back."""
    return lambda *args, **kwargs: read_run(write_run(*args, **kwargs))
