#!/usr/bin/env bash
# load_dataset of a folder leaves files out without a word: by their names, and by what else lies there.
#
# Versions:  datasets 5.2.0, pyarrow 26.0.1
# One would guess: a folder of JSON lines is read whole, as the split `train`, or the files that are not read are named.
# What happens: as soon as one name has a word such as `test`, `dev` or `eval` in it, splits are read off the names, and
# all files without such a word are dropped: here 2 of 3 documents, and there is no split `train` at all. And one
# format is chosen for a folder, that of the most files: two small tables hide a corpus of a thousand lines.
#
# Output:
#   part-1.jsonl, part-2.jsonl, unit-test.jsonl -> {'test': 1}
#   corpus.jsonl with 1000 lines, authors.csv and sources.csv with one each -> {'train': 2}, columns ['name']
set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1
cd "$work"
venv/bin/python - <<'END'
from pathlib import Path

from datasets import disable_progress_bars, load_dataset

disable_progress_bars()


def folder(name, files):
    Path(name).mkdir()
    for file, text in files.items():
        (Path(name) / file).write_text(text)
    return load_dataset(name)


line = '{"text": "a document"}\n'
found = folder("names", {"part-1.jsonl": line, "part-2.jsonl": line, "unit-test.jsonl": line})
print(f"part-1.jsonl, part-2.jsonl, unit-test.jsonl -> {found.num_rows}")
assert found.num_rows == {"test": 1}, "the behaviour has changed"

table = "name\nsomebody\n"
found = folder("formats", {"corpus.jsonl": 1000 * line, "authors.csv": table, "sources.csv": table})
print(
    "corpus.jsonl with 1000 lines, authors.csv and sources.csv with one each -> "
    f"{found.num_rows}, columns {found['train'].column_names}"
)
assert found.num_rows == {"train": 2}, "the behaviour has changed"
END
