#!/usr/bin/env bash
# JSON lines whose strings look like dates come back as dates, and written again they are numbers.
#
# Versions:  datasets 5.2.0, pyarrow 26.0.1
# One would guess: JSON has no dates, so a string stays a string. What happens: pyarrow takes a column for timestamps if
# all strings of it that it sees can be read so, and `datasets` passes that on: a `text` field gives datetime objects,
# and written to JSON again it is a number. One string that is no date in the same file changes the type of all.
#
# Output:
#   all dates: Value('timestamp[s]'), datetime.datetime(2024, 1, 2, 0, 0), written again 1704153600000
#   one is no date: Value('string'), '2024-01-02', written again "2024-01-02"
set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1
cd "$work"
venv/bin/python - <<'END'
import json
from pathlib import Path

from datasets import disable_progress_bars, load_dataset

disable_progress_bars()


def look(name, strings):
    Path("in.jsonl").write_text("".join(json.dumps({"text": each}) + "\n" for each in strings))
    data = load_dataset("json", data_files="in.jsonl", split="train", cache_dir=name.replace(" ", "-"))
    data.to_json("out.jsonl")
    again = json.loads(Path("out.jsonl").read_text().splitlines()[0])["text"]
    print(f"{name}: {data.features['text']}, {data[0]['text']!r}, written again {json.dumps(again)}")
    return data[0]["text"], again


value, again = look("all dates", ["2024-01-02", "2024-01-03"])
assert not isinstance(value, str) and again != "2024-01-02", "the behaviour has changed"
assert look("one is no date", ["2024-01-02", "yesterday"]) == ("2024-01-02", "2024-01-02"), "the behaviour has changed"
END
