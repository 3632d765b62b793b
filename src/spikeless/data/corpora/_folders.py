"""Folders of data files: which files each split holds, by what README.md says or else by their names.

What a file name says is taken only where it leaves no file out, and every file that is not read is named.
"""

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from spikeless.errors import UserError, nearest

__all__ = ["FORMATS", "DataFolder", "format_of", "read_folder", "shortened", "visible"]

FORMATS = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
}
"""The corpus that reads files of a name."""
COMPRESSED = (".gz", ".zst")
CLOSED = (
    *(".bz2", ".xz", ".lz4", ".zip", ".7z", ".rar", ".tar", ".tgz"),
    *(".feather", ".orc", ".avro", ".pkl", ".h5", ".hdf5", ".xml", ".xlsx"),
)
"""Names of files that hold data which cannot be read here."""
NO_DATA = re.compile(
    r"(licen[cs]e|copying|readme|notice|authors|changelog|contributing|citation|code_of_conduct)s?([-_. ].*)?\.txt"
    r"|(dataset_infos?|dataset_dict|state|config|croissant|package(-lock)?)\.json|requirements.*\.txt",
    re.IGNORECASE,
)
"""Names of files that accompany data."""
NOTES = re.compile(r"(notes?|about|info|terms|index|manifest|checksums?|(md5|sha256)(sums?)?)\b.*\.txt", re.IGNORECASE)
"""Names of text files that accompany data of another format, and are data where all is text."""
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SHARDED = re.compile(r"data/(?P<split>\w+(\.\w+)*)-[0-9]{5}-of-[0-9]{5}[^/]*")
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class DataFolder:
    """What is in a folder.

    Attributes:
        splits: the files of each split, as paths in the folder, in the order in which they are read.
        unread: visible files that are in no split.
        delimiter: what separates the cells of CSV files, if README.md says so.
    """

    splits: Mapping[str, tuple[str, ...]]
    unread: tuple[str, ...]
    delimiter: str | None = None


def read_folder(folder: Path, config: str | None, where: str) -> DataFolder:
    """Find the splits of a folder.

    Args:
        folder: it exists.
        config: the configuration of its README.md; the default one, or the only one, if None.
        where: the folder, for messages.

    Raises:
        UserError: no data, no such configuration, or files of which it is not certain whether they are to be read.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in visible(folder))
    chosen = _configuration(folder, config, where)
    patterns = chosen.get("data_files")
    root = str(chosen.get("data_dir") or "").strip("/")
    if patterns:
        splits = {name: _listed(folder, root, each, where) for name, each in _by_split(patterns, where).items()}
    else:
        splits = _by_name([name for name in names if not root or name.startswith(f"{root}/")], folder, where)
    read = {name for each in splits.values() for name in each}
    return DataFolder(
        splits=splits,
        unread=tuple(name for name in names if name not in read),
        delimiter=chosen.get("sep") or chosen.get("delimiter"),
    )


def format_of(name: str) -> str | None:
    """The corpus that reads a file of this name, compressed or not; None if there is none."""
    return FORMATS.get(_suffix(name))


def _suffix(name: str) -> str:
    """How a name ends, without what tells that it is compressed."""
    path = PurePath(name.lower())
    return path.with_suffix("").suffix if path.suffix in COMPRESSED else path.suffix


def shortened(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _configuration(folder: Path, config: str | None, where: str) -> Mapping[str, Any]:
    """What the head of README.md says of a configuration; empty if it says nothing."""
    configs = _configurations(folder / "README.md", where)
    if not configs:
        if config not in (None, "default"):
            raise UserError(f"{where} has no configurations, since its README.md names none; leave config= out")
        return {}
    names = [str(each.get("config_name", "default")) for each in configs]
    default = [name for name, each in zip(names, configs, strict=True) if each.get("default") is True]
    if config is None and not default and len(names) > 1 and "default" not in names:
        raise UserError(f"{where} has several configurations; name one with config=: {', '.join(names)}")
    wanted = config or (default or [name for name in names if name == "default"] or names)[0]
    if wanted not in names:
        raise UserError(f"{where} has no configuration {wanted!r}; {nearest(wanted, names, 'configuration')}")
    chosen = configs[names.index(wanted)]
    known = {
        "config_name",
        "data_files",
        "data_dir",
        "default",
        "sep",
        "delimiter",
        "description",
        "version",
        "features",
    }
    if unknown := sorted(set(chosen) - known):
        raise UserError(
            f"{where}: README.md gives {', '.join(unknown)} for the configuration {wanted!r}, which only the library "
            "datasets obeys; name the files themselves, with jsonl:, csv:, parquet: or text:"
        )
    return chosen


def _configurations(readme: Path, where: str) -> list[Mapping[str, Any]]:
    """The list `configs` of the YAML between two lines `---` at the head of a README.md."""
    if not readme.is_file():
        return []
    head = re.match(r"\s*---\r?\n(.*?)\r?\n---", readme.read_text(encoding="utf-8-sig", errors="replace"), re.DOTALL)
    if not head:
        return []
    import yaml  # huggingface-hub needs it too

    try:
        said = yaml.safe_load(head[1])
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{where}: the head of README.md is not YAML: {str(error).splitlines()[0]}") from None
    configs = said.get("configs") if isinstance(said, dict) else None
    if configs is None:
        return []
    if not isinstance(configs, list) or not all(isinstance(each, dict) for each in configs):
        raise UserError(f"{where}: README.md has configs that are no list of configurations; write - config_name: NAME")
    return configs


def _by_split(patterns: Any, where: str) -> dict[str, list[str]]:
    """`data_files` in any of its forms, as a list of patterns for each split."""
    if isinstance(patterns, dict):
        patterns = [{"split": name, "path": paths} for name, paths in patterns.items()]
    if isinstance(patterns, str) or all(isinstance(each, str) for each in patterns):
        patterns = [{"split": "train", "path": patterns}]
    found = {}
    for each in patterns:
        paths = each.get("path") if isinstance(each, dict) and "split" in each else None
        paths = [paths] if isinstance(paths, str) else paths
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise UserError(f"{where}: README.md has data_files that cannot be read: {each!r}; write split: and path:")
        found.setdefault(str(each["split"]), []).extend(paths)
    return found


def _listed(folder: Path, root: str, patterns: Sequence[str], where: str) -> tuple[str, ...]:
    """The files that patterns of README.md match, in their order."""
    found: dict[str, None] = {}
    for pattern in patterns:
        inside = PurePath(root, pattern)
        if "://" in pattern or inside.is_absolute() or ".." in inside.parts:
            raise UserError(f"{where}: README.md names {pattern}, which lies outside of the folder; copy it into it")
        matched = sorted(glob.glob(str(inside), root_dir=folder, recursive=True))  # noqa: PTH207, which has no root
        files = [name for name in matched if (folder / name).is_file()]
        if not files:
            raise UserError(f"{where}: README.md names {pattern}, which matches no file; fetch what is missing")
        for name in files:
            if format_of(name) is None and not NO_DATA.fullmatch(PurePath(name).name):
                raise UserError(f"{where}: README.md names {name}, which cannot be read; {_READABLE}")
        found |= dict.fromkeys(name for name in files if format_of(name))
    return tuple(found)


_READABLE = "give JSON, JSON lines, CSV, TSV, Parquet, Arrow or text files, plain or compressed with gzip or Zstandard"


def _by_name(names: Sequence[str], folder: Path, where: str) -> dict[str, tuple[str, ...]]:
    """The splits by the names of folders and files; one split `train` where no name tells a split."""
    data = _data_files(names, where)
    if not data:
        found = f"it holds {shortened(names)}" if names else "it is empty"
        if any(name.endswith(".md") for name in names):
            found += f"; for its Markdown files write 'text:{folder}/**/*.md'"
        raise UserError(f"{where} holds no data files: {found}; {_READABLE}")
    splits: dict[str, list[str]] = {}
    for name in data:
        splits.setdefault(_split_of(name, where), []).append(name)
    unnamed = splits.pop("", [])
    if unnamed and splits:
        named = "; ".join(f"{split}: {shortened(each)}" for split, each in splits.items())
        raise UserError(
            f"{where}: it is not certain what {shortened(unnamed)} is for, beside files that are named for a split "
            f"({named}); move it into a folder train/, name the files in README.md under configs:, or write "
            f"'{format_of(unnamed[0])}:{folder}/{unnamed[0]}'"
        )
    splits = splits or {"train": unnamed}
    for split, each in splits.items():
        _refuse_mixed(each, split, folder, where)
    return {split: tuple(each) for split, each in splits.items()}


def _data_files(names: Sequence[str], where: str) -> list[str]:
    """Those that hold data; text files that accompany other data do not."""
    data = [name for name in names if format_of(name) and not NO_DATA.fullmatch(PurePath(name).name)]
    if any(format_of(name) != "text" for name in data):
        data = [name for name in data if not NOTES.fullmatch(PurePath(name).name)]
    closed = [
        name
        for name in names
        if _suffix(name) in (CLOSED if PurePath(name).suffix not in COMPRESSED else (*CLOSED, ""))
    ]
    if closed:
        raise UserError(
            f"{where}: {shortened(closed)} cannot be read; unpack or convert it, or move it away: {_READABLE}"
        )
    return data


def _split_of(name: str, where: str) -> str:
    """The split that a path names: a folder called so, else a word in the name of a folder or the file; or none."""
    if match := SHARDED.fullmatch(name):
        return match["split"]
    *folders, file = PurePath(name.lower()).parts
    exact = {split for part in folders for split, words in SPLITS.items() if part in words}
    parts = [re.split(r"[-._ 0-9]+", part) for part in (*folders, file)]
    loose = {split for part in parts for split, words in SPLITS.items() if set(part) & set(words)}
    found = exact or loose
    if len(found) > 1:
        raise UserError(f"{where}: {name} is named for several splits, {' and '.join(sorted(found))}; rename it")
    return next(iter(found), "")


def _refuse_mixed(names: Sequence[str], split: str, folder: Path, where: str) -> None:
    formats: dict[str, list[str]] = {}
    for name in names:
        formats.setdefault(str(format_of(name)), []).append(name)
    if len(formats) > 1:
        held = "; ".join(f"{kind}: {shortened(each)}" for kind, each in formats.items())
        most = max(formats, key=lambda kind: len(formats[kind]))
        raise UserError(
            f"{where}: the split {split} holds files of several formats ({held}), which may be the same twice; name "
            f"one, such as '{most}:{folder}/**/*{PurePath(formats[most][0]).suffix}', or name the files in README.md "
            "under configs:"
        )


def visible(folder: Path) -> Iterator[Path]:
    """Every file below it, in linked folders too, that is not hidden."""
    for root, folders, files in os.walk(folder, followlinks=True):
        above = Path(root).resolve()
        folders[:] = [
            name
            for name in folders
            if not name.startswith((".", "__")) and not above.is_relative_to((above / name).resolve())
        ]
        yield from (Path(root) / name for name in files if name[0] != ".")
