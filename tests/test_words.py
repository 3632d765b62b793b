import math
import re
from pathlib import Path

import pytest

import spikeless
from spikeless.words import count, counted, duration, number, plural, size


@pytest.mark.parametrize(
    ("noun", "many"),
    [
        ("run", "runs"),
        ("corpus", "corpora"),
        ("matrix", "matrices"),
        ("learning rate", "learning rates"),
        ("process", "processes"),
        ("batch", "batches"),
        ("entry", "entries"),
        ("key", "keys"),
        ("epoch", "epochs"),
    ],
)
def test_plurals(noun, many):
    assert plural(noun) == many
    assert (counted(1, noun), counted(0, noun), counted(2048, noun)) == (f"1 {noun}", f"0 {many}", f"2,048 {many}")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (2e-5, "20 µs"),
        (0.25, "250 ms"),
        (0.9996, "1 s"),
        (1.82, "1.82 s"),
        (90, "90.0 s"),
        (132, "2.2 min"),
        (math.inf, "unknown"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_rounded_number_takes_the_next_unit_and_never_a_power_of_ten():
    assert [size(each) for each in (999, 999.9, 13_100_000, 999_999_999)] == ["999 B", "1 kB", "13.1 MB", "1 GB"]
    assert [count(each) for each in (999, 999_950, 1.5e9, None)] == ["999", "1M", "1.5B", "–"]
    assert [number(each) for each in (0.0123, 999.9, 12345.6, 1.2e-7)] == ["0.0123", "1000", "12346", "1.2e-7"]
    assert [number(150, 2), number(99_999.7)] == ["150", "1e5"]


def test_no_message_writes_a_plural_of_its_own():
    """A number before a noun in the plural, or an "s" that is added where a number is not one."""
    own = re.compile(r"""'' if [^"{}]+ == 1 else 's'|"1 \w+" if |"" if .* == 1 else "s\"""")
    sources = [path for kind in ("py", "jinja") for path in Path(spikeless.__file__).parent.rglob(f"*.{kind}")]
    assert not [path.name for path in sources if own.search(path.read_text(encoding="utf-8"))]
