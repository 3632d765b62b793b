"""The default corpus: the documentation of the Python packages on this machine, no download needed."""

import importlib.util
import json
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import ClassVar

from spikeless.data.cache import cached
from spikeless.data.corpora import _docstrings
from spikeless.data.documents import Tally
from spikeless.data.progress import track
from spikeless.errors import UserError
from spikeless.files import aside, content_hash, read_json, sha256, write_json

__all__ = ["PyDocs"]

FILES_PER_WORKER = 128
STANDARD_LIBRARY = "stdlib"


@dataclass(frozen=True, kw_only=True)
class PyDocs:
    """Docstrings of at least 200 characters from the sources of some packages, none of which is imported.

    Modules', classes' and functions' docstrings are each a document: cleaned like `inspect.cleandoc`, exact
    duplicates dropped, in the order of package, path and position. The default is about 8 MB of technical
    English. The extraction is cached under the packages' paths, sizes and modification times.
    """

    usage: ClassVar[str] = "pydocs[:PACKAGE+PACKAGE…]"

    packages: str = "stdlib+torch+numpy"
    """Names of top-level packages, joined by '+'; `stdlib` is the whole standard library."""

    def documents(self, tally: Tally | None = None) -> Iterator[str]:
        """Stream the docstrings.

        Raises:
            UserError: a package has no sources on this machine.
        """
        with self._extracted[0].open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)

    def validation_documents(self, tally: Tally | None = None) -> None:
        """There are none of its own: some are to be split off."""

    def selection(self) -> str:
        """Nothing that the spec does not say."""
        return ""

    def fingerprint(self) -> str:
        """Identify the content by the hash of the extracted documents.

        Raises:
            UserError: a package has no sources on this machine.
        """
        return content_hash("pydocs", self._extracted[1])

    @cached_property
    def _extracted(self) -> tuple[Path, str]:
        names = self.packages.split("+")
        sources = [_sources(name) for name in names]
        versions = {name: _version(name) for name in names}
        paths = [path for _, paths in sources for path in paths]
        listing = [_listed(path, root) for root, paths in sources for path in paths]
        key = content_hash(Path(_docstrings.__file__).read_bytes(), json.dumps(versions), *listing)
        return cached("pydocs", key, lambda folder: _extract(paths, versions, folder), _read)


def _sources(package: str) -> tuple[Path, list[Path]]:
    """The folder of a package and the Python files in it, or that of a module and its one file."""
    origin = _origin(package)
    if origin and origin.is_dir():
        paths = sorted(_python_files(origin))
        if paths:
            return origin, [origin / path for path in paths]
    elif origin and origin.suffix == ".py":
        return origin.parent, [origin]
    raise UserError(
        f"pydocs: no Python sources of {package!r} were found ({origin or 'not installed'}); "
        "name installed packages, as in pydocs:stdlib+numpy, or give your own files with text:GLOB"
    )


def _listed(path: Path, root: Path) -> str:
    status = path.stat()
    return f"{str(path).removeprefix(str(root))} {status.st_size} {status.st_mtime_ns}"


def _python_files(root: Path) -> Iterator[str]:
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name not in ("site-packages", "__pycache__")]
        prefix = Path(folder).relative_to(root).as_posix()
        yield from (f"{prefix}/{file}" for file in files if file.endswith(".py") and not file.startswith("."))


def _origin(package: str) -> Path | None:
    if package == STANDARD_LIBRARY:
        return Path(sysconfig.get_path("stdlib"))
    # a name without a dot is looked up, and nothing is imported
    try:
        found = importlib.util.find_spec(package) if package.isidentifier() else None
    except ValueError:  # __main__ has none
        found = None
    if found is None:
        return None
    return Path(next(iter(found.submodule_search_locations or ()), found.origin or ""))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return platform.python_version()


def _extract(paths: list[Path], versions: dict[str, str], folder: Path) -> None:
    with aside(folder) as temporary:
        target, count = temporary / "documents.jsonl", 0
        with target.open("w", encoding="utf-8") as file:
            for document in _distinct(_docstrings_of(paths)):
                file.write(json.dumps(document) + "\n")
                count += 1
        if not count:
            raise UserError(f"pydocs: {'+'.join(versions)} hold no long docstring; name other packages")
        manifest = {"versions": versions, "documents": count, "sha256": sha256(target)}
        write_json(temporary / "manifest.json", manifest)


def _docstrings_of(paths: list[Path]) -> Iterator[str]:
    chunks = [paths[start : start + FILES_PER_WORKER] for start in range(0, len(paths), FILES_PER_WORKER)]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as workers:
        results = workers.map(_run_worker, chunks)
        for output in track(results, "reading docstrings", total=len(chunks)):
            for line in output.splitlines():
                yield from json.loads(line)


def _run_worker(paths: list[Path]) -> bytes:
    command = [sys.executable, "-I", "-S", _docstrings.__file__]
    lines = b"".join(os.fsencode(path) + b"\n" for path in paths)
    return subprocess.run(command, input=lines, stdout=subprocess.PIPE, check=True).stdout


def _distinct(documents: Iterable[str]) -> Iterator[str]:
    seen = set()
    for document in documents:
        identity = content_hash(document)
        if identity not in seen:
            seen.add(identity)
            yield document


def _read(folder: Path) -> tuple[Path, str]:
    path, manifest = folder / "documents.jsonl", read_json(folder / "manifest.json")
    identity = manifest.get("sha256") if isinstance(manifest, dict) else None
    if not identity or not path.is_file() or sha256(path) != identity:
        raise UserError(f"{path} does not match its manifest")
    return path, identity
