"""What to write instead of a spec that names no corpus, or one of another format: a spelling to copy."""

import difflib
import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

from spikeless.data.corpora._folders import format_of, visible
from spikeless.errors import nearest

__all__ = ["likely_spec", "of_folder", "other_format", "similar_path"]

NAMES_OF_OTHERS = {
    **dict.fromkeys(("json", "jsonlines", "ndjson", "ldjson"), "jsonl"),
    **dict.fromkeys(("txt", "md", "file", "files", "glob"), "text"),
    **dict.fromkeys(("huggingface", "hub", "dataset", "datasets", "folder", "dir"), "hf"),
    **dict.fromkeys(("shard", "tokens"), "shards"),
    "tsv": "csv",
}
"""What people call a corpus elsewhere."""
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+]*)://(?P<rest>.*)")


def likely_spec(spec: str, names: Sequence[str]) -> str:
    """The end of a message about a spec that names no corpus: what would be right.

    Args:
        spec: as it was written.
        names: of the corpora.
    """
    head, comma, options = spec.strip().partition(",")
    options = comma + options
    if match := _ADDRESS.fullmatch(head):
        place = match["rest"].removeprefix("datasets/")
        if match["scheme"] == "hf":
            return f"write 'hf:{'/'.join(place.split('/')[:2])}{options}' for a dataset of the hub"
        if match["scheme"] != "file":
            return f"it is an address; fetch the file, and write '{format_of(head) or 'text'}:FILE{options}'"
        head = match["rest"]
    name, colon, rest = head.partition(":")
    if colon and not Path(head).exists():
        name = NAMES_OF_OTHERS.get(name.strip().lower(), name.strip())
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        return f"did you mean '{close[0]}:{rest}{options}'?" if close else nearest(name, names, "corpus")
    found = _of_path(head)
    if found:
        return f"did you mean '{found}{options}'?"
    if kind := format_of(head):
        return f"did you mean '{kind}:{head}{options}'? There is no such file{similar_path(head)}"
    if _HUB.fullmatch(head):
        return f"there is no such folder; did you mean 'hf:{head}{options}' of the hub?"
    return nearest(head, names, "corpus")


def of_folder(folder: str) -> str | None:
    """The spec that reads a folder; None if it holds nothing that could be read."""
    path = Path(os.path.expanduser(folder))  # noqa: PTH111, which may raise
    held = {each.name for each in path.iterdir()}
    plain = folder.rstrip("/") or folder
    if held & {"manifest.json", "mixture.json"}:
        return f"shards:{plain}"
    if held & {"state.json", "dataset_dict.json"}:
        return f"hf:{plain}"
    files = [each.name for each in visible(path)]
    kinds = Counter((format_of(each) or _as_text(each), "".join(PurePath(each).suffixes[-1:])) for each in files)
    kinds.pop((None, ""), None)
    known = [(kind, suffix) for (kind, suffix), _ in kinds.most_common() if kind]
    if not known:
        return None
    records = [each for each in known if each[0] != "text"]
    kind, suffix = (records or known)[0]
    return f"hf:{plain}" if len(records) > 1 else f"{kind}:{plain}/**/*{suffix}"


def other_format(paths: Sequence[Path], kind: str) -> str | None:
    """The corpus that would read files that are all named for another format than `kind`; None if they are not."""
    formats = {format_of(path.name) for path in paths}
    if len(formats) != 1 or None in formats or kind in formats:
        return None
    (other,) = formats
    if kind == "text" and all(PurePath(path.name.lower()).suffix == ".json" for path in paths):
        return None  # a document like any other source code
    return None if other == "text" and kind in ("jsonl", "csv") else other


def similar_path(pattern: str) -> str:
    """Part of a message about a pattern that matches nothing: the name that was meant, perhaps."""
    here = Path()
    for part in PurePath(os.path.expanduser(pattern)).parts:  # noqa: PTH111, which may raise
        if glob.has_magic(part) or (here / part).exists():
            if glob.has_magic(part):
                return ""
            here /= part
            continue
        hint = nearest(part, [each.name for each in here.iterdir()] if here.is_dir() else [], "name")
        return f": of {part!r}, {hint}" if hint.startswith("did you mean") else ""
    return ""


def _of_path(path: str) -> str | None:
    """The spec of what lies at a path or matches a pattern."""
    there = Path(os.path.expanduser(path))  # noqa: PTH111, which may raise
    if there.is_dir():
        return of_folder(path)
    matched = [path] if there.is_file() else glob.glob(str(there), recursive=True)  # noqa: PTH207, absolute ones too
    kinds = Counter(format_of(each) or _as_text(each) for each in matched if Path(each).is_file())
    kinds.pop(None, None)
    return f"{kinds.most_common(1)[0][0]}:{path}" if kinds else None


def _as_text(name: str) -> str | None:
    return "text" if PurePath(name.lower()).suffix in (".md", ".rst", ".py", ".log", ".text", ".html", ".tex") else None
