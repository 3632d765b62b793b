"""A start ends with row 1; the command is one of ours that only writes the files."""

import sys

import pytest

COMMAND = """#!/bin/sh
for out; do :; done
mkdir -p "$out"
echo '{"threads": 2, "precision": "fp32"}' > "$out/environment.json"
echo "$SPIKELESS_CACHE" > "$0.cache"
printf '{"step": 0}\\n{"step": 1' > "$out/metrics.jsonl"
"""


@pytest.fixture
def pretend(tmp_path, monkeypatch):
    """Makes `spikeless` a shell script that writes half of row 1, and then does this."""

    def make(then):
        (tmp_path / "spikeless").write_text(COMMAND + then)
        (tmp_path / "spikeless").chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    return make


def test_a_start_ends_when_row_1_is_whole(script, pretend, tmp_path):
    pretend('sleep 0.2; printf "}\\n" >> "$out/metrics.jsonl"; exec sleep 100')
    found = script("start_time").start(tmp_path / "cache")
    assert 0.2 < found.pop("wall_seconds") < 60
    assert found.pop("cpu_seconds") < 10
    assert found == {"threads": 2, "precision": "fp32"}
    assert (tmp_path / "spikeless.cache").read_text().strip() == str(tmp_path / "cache")


def test_a_command_that_ends_before_is_shown(script, pretend, tmp_path):
    pretend("echo what went wrong >&2; exit 2")
    with pytest.raises(SystemExit, match="what went wrong"):
        script("start_time").start(tmp_path / "cache")
