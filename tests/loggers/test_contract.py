"""What holds for every file in loggers/: rows go in, and a reopened sink forgets what came after a step."""

import json
import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from spikeless.config import find, names_in
from spikeless.errors import UserError
from spikeless.loggers.jsonl import JSONLines
from spikeless.loggers.tensorboard import TensorBoard

LOGGERS = pytest.mark.parametrize("name", names_in("loggers"))


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def scalars(folder: Path, key: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(key)]


READ = {
    "jsonl": lambda folder: [(row["step"], row["loss"]) for row in rows(folder)],
    "tensorboard": lambda folder: scalars(folder, "loss"),
}


def write(kind, folder, last_step, steps, shift=0.0):
    logger = kind(folder, last_step)
    for step in steps:
        logger.log({"step": step, "loss": step + shift})
    logger.flush()
    logger.close()


def test_every_logger_is_read_here():
    assert READ.keys() == set(names_in("loggers"))


@LOGGERS
def test_what_is_logged_can_be_read(name, tmp_path):
    write(find("loggers", name), tmp_path, -1, range(4))
    assert READ[name](tmp_path) == [(step, float(step)) for step in range(4)]


@LOGGERS
@pytest.mark.parametrize("last_step", [-1, 0, 3, 99])
def test_a_reopened_logger_forgets_what_came_after_the_last_step(name, last_step, tmp_path):
    """-1 is a run that was killed before its first checkpoint and begins again."""
    kind, first = find("loggers", name), min(last_step, 5) + 1
    write(kind, tmp_path, -1, range(6))
    write(kind, tmp_path, last_step, range(first, 9), shift=0.5)
    assert READ[name](tmp_path) == [(s, float(s)) for s in range(first)] + [(s, s + 0.5) for s in range(first, 9)]


def test_event_files_are_read_in_the_order_of_their_writing(tmp_path):
    """Within one second their names end in a counter: .10 would stand before .9."""
    for number in range(3):
        TensorBoard(tmp_path, number).close()
    seconds = [path.name.split(".")[3] for path in (tmp_path / "tensorboard").iterdir()]
    assert len(set(seconds)) == 3


# --- metrics.jsonl ---


@pytest.mark.parametrize(
    ("value", "stored"), [(math.nan, '"NaN"'), (math.inf, '"Infinity"'), (-math.inf, '"-Infinity"'), (1.5, "1.5")]
)
def test_non_finite_numbers_are_strings_of_strict_json(value, stored, tmp_path):
    logger = JSONLines(tmp_path, -1)
    logger.log({"step": 1, "loss": value})
    logger.close()
    assert (tmp_path / "metrics.jsonl").read_text() == f'{{"step": 1, "loss": {stored}}}\n'


def test_a_row_is_on_disk_when_it_was_logged(tmp_path):
    logger = JSONLines(tmp_path, -1)
    logger.log({"step": 1})
    assert rows(tmp_path) == [{"step": 1}]
    logger.close()


@pytest.mark.parametrize("tail", ['{"step": 2, "lo', '{"step": 2}', "\x00\x00", "\xff"])
def test_a_half_written_tail_is_cut(tail, tmp_path):
    """Even one that is whole but for its newline: the row after it must not be glued to it."""
    write(JSONLines, tmp_path, -1, range(2))
    with (tmp_path / "metrics.jsonl").open("a", encoding="latin-1") as file:
        file.write(tail)
    write(JSONLines, tmp_path, 9, [2])
    assert [row["step"] for row in rows(tmp_path)] == [0, 1, 2]


@pytest.mark.parametrize("line", ["rubbish", "[1]", "3", '{"loss": 1}', '{"step": "x"}', ""])
def test_a_line_that_is_no_row_is_refused_and_left_as_it_is(line, tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text(f'{{"step": 0}}\n{line}\n{{"step": 2}}\n')
    before = file.read_bytes()
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: expected a JSON object"):
        JSONLines(tmp_path, 2)
    assert file.read_bytes() == before


# --- TensorBoard ---


def test_tensorboard_has_a_scalar_for_every_number_but_the_step(tmp_path):
    logger = TensorBoard(tmp_path, -1)
    logger.log({"step": 7, "loss": 2.0, "tev/mean": 0.25, "grad_norm": math.inf})
    logger.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["grad_norm", "loss", "tev/mean"]
    assert scalars(tmp_path, "tev/mean") == [(7, 0.25)]
