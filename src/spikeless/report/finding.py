"""Run folders below a folder: where they are, and which of them can be read."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from spikeless.errors import UserError
from spikeless.report.record import RunRecord, read_run
from spikeless.words import counted

__all__ = ["find_runs", "read_runs"]

OWN_FOLDERS = {"checkpoints", "tensorboard"}
"""Of a run; no other run is looked for in them."""
SKIPPED = {"__pycache__", "node_modules"}


def find_runs(folder: Path) -> list[Path]:
    """The run folders in a folder, at any depth, by name: itself, and those below it, behind links too.

    Hidden folders are not looked into.

    Raises:
        UserError: there is none; the message says where they were looked for.
    """
    looked: set[Path] = set()
    found = sorted(_below(folder, looked))
    if found:
        return found
    if not folder.is_dir():
        raise UserError(f"{folder} holds no run: there is no such folder in {Path.cwd()}")
    raise UserError(
        f"{folder} holds no run: there is no run.json in {folder.resolve()}, nor in the "
        f"{counted(len(looked) - 1, 'folder')} below it; give a run folder, or a folder of them"
    )


def read_runs(folders: Sequence[Path]) -> tuple[list[RunRecord], list[str]]:
    """The runs in some folders, each once, and what is wrong with those that cannot be read.

    Raises:
        UserError: there is no run in one of the folders, or none of all can be read.
    """
    records, damages = [], []
    for path in dict.fromkeys(path for folder in folders for path in find_runs(folder)):
        try:
            records.append(read_run(path))
        except UserError as error:
            damages.append(str(error))
        except OSError as error:  # not ours to read
            damages.append(f"{path}: {error.strerror or error}")
    if not records:
        raise UserError("\n".join(damages))
    return records, damages


def _below(folder: Path, looked: set[Path]) -> Iterator[Path]:
    """The run folders, each folder once; `looked` gathers what was looked into."""
    real = folder.resolve()
    if real in looked:
        return
    looked.add(real)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # not a folder, or one that we may not look into
        return
    is_run = any(entry.name == "run.json" for entry in entries)
    if is_run:
        yield folder
    for entry in entries:
        own = is_run and entry.name in OWN_FOLDERS
        if not (own or entry.name in SKIPPED or entry.name.startswith(".")) and _is_folder(entry):
            yield from _below(folder / entry.name, looked)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False
