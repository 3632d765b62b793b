"""What a run says of itself while it trains."""

import io
import math

import pytest
from rich.console import Console

from spikeless.cli._progress import LiveLine, live_progress


@pytest.fixture
def show(monkeypatch):
    """Shows rows of a run, each so many seconds after the one before; returns what stays, line by line."""
    clock = [0.0]
    monkeypatch.setattr("spikeless.cli._progress.time.monotonic", lambda: clock[0])

    def run(rows, seconds=1.0, steps=10_000, terminal=False):
        console = Console(file=io.StringIO(), width=80, force_terminal=terminal, legacy_windows=False)
        with live_progress(console) as progress:
            line = LiveLine(progress, "mlra(rank=16)", steps, tokens_per_step=1000)
            for row in rows:
                clock[0] += seconds
                line.log(row)
            (task,) = progress.tasks
            live = task.fields["numbers"]
        return [each for each in console.file.getvalue().splitlines() if each.strip()], live

    return run


def row(step, **more):
    return {"step": step, "loss": 4.0, "lr": 0.003, "grad_norm": 1.5, "tokens_per_second": 500.0, **more}


def test_a_log_file_has_the_first_step_at_once_with_the_rate_and_the_time_left(show):
    lines, _ = show([{"step": 0, "val_loss": 5.5, "val_bits_per_byte": 1.25}, row(1)], steps=61)
    assert lines == [
        "mlra(rank=16): step 0/61  val 5.500 (1.250 bits/byte)",
        "mlra(rank=16): step 1/61  loss 4.000  lr 0.003  grad norm 1.5  500 tok/s  2.0 min left",
    ]


def test_lines_come_every_ten_seconds_and_later_every_minute(show):
    lines, _ = show([row(step) for step in range(1, 5001)])
    steps = [int(line.split("step ")[1].split("/")[0].replace(",", "")) for line in lines]
    assert steps[:4] == [1, 12, 23, 34]
    assert steps[-1] - steps[-2] == 61
    assert lines[1].endswith("2.8 h left")  # by the pace of a step a second, whatever a step alone takes


def test_validation_and_the_last_step_always_have_a_line(show):
    rows = [row(1), row(2), row(3, val_loss=4.4, val_bits_per_byte=1.1), row(4), row(5)]
    lines, _ = show(rows, seconds=2, steps=5)
    assert ["val 4.400 (1.100 bits/byte)" in line for line in lines] == [False, True, False]
    assert lines[-1] == "mlra(rank=16): step 5/5  loss 4.000  lr 0.003  grad norm 1.5  500 tok/s"


def test_a_terminal_keeps_validations_and_fits_80_columns(show):
    lines, live = show([row(1234), row(1235, val_loss=math.nan)], terminal=True)
    assert sum("step 1,235/10,000  val nan" in line for line in lines) == 1
    assert live == "loss 4.000  lr 0.003  500 tok/s  2.4 h left"
