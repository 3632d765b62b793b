import io
import math
import re

import pytest
from rich.console import Console

from spikeless.experiments.analysis.remarks import not_helping, warnings
from spikeless.experiments.presentation.terminal import SHOWN, render

INF = math.inf


def printed(comparison, width=80):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render(comparison))
    return console.file.getvalue()


def flat(text):
    return " ".join(text.split())


def row_of(text, arm):
    """The cells of an arm's lines up to the next arm's, column by column."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f" {arm} "))
    return lines[start].split()[1:], lines[start + 1].split()


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_cut_off(any_comparison, width):
    text = printed(any_comparison, width)
    assert "…" not in text and not re.search(r"\b(nan|inf|None)\b", text)
    assert all(len(line) <= width for line in text.splitlines())
    for each in warnings(any_comparison):
        assert flat(f"! {each}") in flat(text)
    for each in not_helping(any_comparison)[:SHOWN]:
        assert flat(f"- {each}") in flat(text)


def test_a_comparison_in_numbers(comparisons):
    text = printed(comparisons["whole"]())
    assert "2 arms × 3 learning rates × 3 seeds on deep_nano: 18 runs of 40 steps, 3 failed" in flat(text)
    assert "2 layers × 64" in text
    first, second = row_of(text, "mlra")
    assert first == ["3", "0.1", "3.500", "-0.100", "≥1", "≥10×", "0.27", "9", "1.00×"]
    assert second == ["±0.248", "p", "0.25"]
    first, second = row_of(text, "baseline")
    assert first == ["3", "0.1", "3.600", "–", "0.1", "1×", "1.30", "9", "–"]
    assert second == ["3/9", "failed", "±0.248"]


def test_a_failed_seed_and_a_failed_arm(make_comparison):
    grid = {"baseline": {0.1: (3.0, 3.2, INF), 1.0: (INF,) * 3}, "mlra": {0.1: (INF,) * 3, 1.0: (INF,) * 3}}
    text = printed(make_comparison(grid), 120)
    assert row_of(text, "baseline")[0][:4] == ["3", "0.1", "↓", "3.200"]
    assert row_of(text, "baseline")[1] == ["4/6", "failed", "median"]
    assert row_of(text, "mlra")[0][:3] == ["0", "–", "failed"]
    assert "none" in row_of(text, "mlra")[0]


def test_of_many_remarks_the_first_are_shown(make_comparison):
    arms = {f"lab:T{index}": {0.1: (4.0, 4.1), 1.0: (5.0, 5.1)} for index in range(SHOWN + 3)}
    grid = make_comparison({"baseline": {0.1: (3.0, 3.1), 1.0: (3.0, 3.2)}} | arms)
    text = printed(grid)
    assert text.count("- lab:T") == SHOWN
    assert f"and {len(not_helping(grid)) - SHOWN} more: see the report" in text
    assert "more: see the report" not in printed(make_comparison(dict(list(arms.items())[:2])))


def test_where_nothing_is_to_say_there_is_no_such_heading(comparisons):
    assert "did not help" not in printed(comparisons["one arm"]())
    assert "did not help" in printed(comparisons["whole"]())
