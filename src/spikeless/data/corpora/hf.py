"""Hugging Face datasets: a local folder of data files or of `save_to_disk`, or a name on the hub."""

import contextlib
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from spikeless.data.corpora import Tally
from spikeless.data.corpora._files import file_hash
from spikeless.data.corpora._records import missing_field, text_of
from spikeless.errors import UserError, nearest
from spikeless.files import content_hash, read_json
from spikeless.hub import hub_answers

__all__ = ["HuggingFace"]

SAVED = ("state.json", "dataset_dict.json")
"""What `Dataset.save_to_disk` and `DatasetDict.save_to_disk` leave in a folder."""
BATCH_ROWS = 128
MESSAGE_CHARACTERS = 400
"""How much is passed on of what the library says."""


@dataclass(frozen=True, kw_only=True)
class HuggingFace:
    """One field of one split of a dataset, through the library `datasets`; no code of a dataset is ever run.

    A folder is read where it lies. A hub dataset is downloaded into the library's own cache, and served from
    there where the hub cannot be reached; with `streaming=true` it is read over the network, once per pass.
    Text that is blank or null is skipped and counted; the library itself refuses what is not UTF-8.
    """

    usage: ClassVar[str] = (
        "hf:NAME_OR_DIR[,config=NAME][,split=NAME][,field=NAME][,validation_split=NAME][,streaming=true]"
    )

    name: str
    config: str | None = None
    split: str = "train"
    field: str = "text"
    validation_split: str | None = None
    """The split that holds the validation documents; without it some documents are split off."""

    streaming: bool | None = None
    """Read without a copy in the library's cache; by default for folders, and not for the hub."""

    def documents(self, tally: Tally | None = None) -> Iterator[str]:
        """Stream the documents for training.

        Raises:
            UserError: no such dataset, configuration, split or field, or the data cannot be read.
        """
        return self._documents(self.split, tally)

    def validation_documents(self, tally: Tally | None = None) -> Iterator[str] | None:
        """Stream the documents of `validation_split`; None without one.

        Raises:
            UserError: as for `documents`.
        """
        return None if self.validation_split is None else self._documents(self.validation_split, tally)

    def fingerprint(self) -> str:
        """Identify the content: by the files of a folder and their names, or by the commit of a hub dataset.

        Raises:
            UserError: no such dataset, or a file cannot be read.
        """
        options = [self.config, self.split, self.field, self.validation_split]
        if self._folder is None:
            content = ["hub", self.name, self._builder.hash]
        else:
            names = self._files(self._folder)
            hashes = [file_hash(self._folder / name, "hf") for name in names]
            content = ["folder", *(part for pair in zip(names, hashes, strict=True) for part in pair)]
        return content_hash("hf", *map(repr, options), *map(str, content))

    @property
    def _where(self) -> str:
        return f"hf: {self.name}"

    @property
    def _folder(self) -> Path | None:
        path = Path(os.path.expanduser(self.name))  # noqa: PTH111, which may raise
        if path.is_dir():
            return path
        if path.is_file():
            raise UserError(f"{self._where} is a file; name its folder, or write jsonl:, parquet: or text: before it")
        if self.name.startswith((".", "~", "/")) or self.name.count("/") > 1:
            raise UserError(f"{self._where}: there is no such folder in {Path.cwd()}")
        return None

    def _files(self, folder: Path) -> list[str]:
        """What may be read of a folder: what is not hidden, and what the folder itself names; relative paths, sorted.

        Raises:
            UserError: some of it lies outside, where it could change unseen.
        """
        if _is_saved(folder):
            with _explained(self._where):  # a damaged one
                named = [
                    str(state.parent / str(each["filename"]))
                    for state in folder.rglob("state.json")
                    for each in read_json(state).get("_data_files") or ()
                ]
        else:
            named = [str(each) for split in (self._builder.config.data_files or {}).values() for each in split]
        paths = {*named, *(str(path) for path in _visible(folder))}
        for path in paths:
            if "://" in path or not Path(path).resolve().is_relative_to(folder.resolve()):
                raise UserError(f"{self._where}: {path} lies outside of the folder; copy it into the folder")
        return sorted(
            {os.path.relpath(path, folder.resolve() if Path(path).is_absolute() else folder) for path in paths}
        )

    @cached_property
    def _splits(self) -> dict[str, Iterable[Any]]:
        """Every split that can be read, by name."""
        folder, datasets = self._folder, _library()
        with _explained(self._where):
            if folder is not None:
                self._files(folder)
            if folder is not None and _is_saved(folder):
                if self.config is not None:
                    raise UserError(f"{self._where} is a saved dataset, which has no configurations; leave config= out")
                saved = datasets.load_from_disk(str(folder))
                return dict(saved) if isinstance(saved, dict) else {str(saved.split or "train"): saved}
            if self.streaming if self.streaming is not None else folder is not None:
                return dict(self._builder.as_streaming_dataset())
            self._builder.download_and_prepare()
            return dict(self._builder.as_dataset())

    @cached_property
    def _builder(self) -> Any:
        """The library's description of the dataset: a folder's, a hub's, or what its cache holds of the hub's."""
        datasets, folder = _library(), self._folder
        if folder is not None:
            with _explained(self._where):
                return datasets.load_dataset_builder(str(folder.resolve()), self.config)
        online = hub_answers()
        with _explained(self._where) if online else _cached_only(datasets, self.name):
            return datasets.load_dataset_builder(self.name, self.config)

    def _documents(self, split: str, tally: Tally | None) -> Iterator[str]:
        tally, empty = Tally() if tally is None else tally, True
        if split not in self._splits:
            raise UserError(f"{self._where} has no split {split!r}; {nearest(split, self._splits, 'split')}")
        where = f"{self._where}, split {split}"
        for number, value in enumerate(self._values(self._splits[split], where)):
            document = text_of({self.field: value}, self.field, f"{where}, row {number}")
            if document and not document.isspace():
                empty = False
                yield document
            else:
                tally["blank"] += 1
        if empty:
            raise UserError(f"{where} holds no text in the field {self.field!r}; name another split or field")

    def _values(self, dataset: Any, where: str) -> Iterator[Any]:
        """What the one field holds, row by row; no picture or sound beside it is decoded."""
        with _explained(where):
            known = dataset.column_names
            if known is not None and self.field not in known:
                raise missing_field(self.field, known, where)
            for batch in (dataset if known is None else dataset.select_columns([self.field])).iter(BATCH_ROWS):
                if self.field not in batch:
                    raise missing_field(self.field, batch, where)
                yield from batch[self.field]


def _library() -> Any:
    """`datasets`, told to be silent; its progress is shown where somebody may see it."""
    try:
        import datasets
    except ImportError:
        raise UserError("hf: the library datasets is not installed; pip install 'spikeless[data]'") from None
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    return datasets


@contextlib.contextmanager
def _explained(where: str) -> Iterator[None]:
    """The library raises whatever its parts raise: all of it is about the data."""
    try:
        yield
    except (UserError, GeneratorExit):
        raise
    except Exception as error:
        raise UserError(f"{where} cannot be read: {_said(error)}") from None


def _said(error: Exception) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {error}", MESSAGE_CHARACTERS)


@contextlib.contextmanager
def _cached_only(datasets: Any, name: str) -> Iterator[None]:
    """The library asks its cache alone, at once."""
    before, datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE, True
    try:
        yield
    except ValueError as error:
        raise UserError(f"hf: {name} cannot be read from the cache: {_said(error)}") from None
    except Exception:
        raise UserError(
            f"hf: there is no folder {name}, it is not in the cache of datasets, and the Hugging Face hub "
            "cannot be reached from here; check the name and the network, or give a local folder"
        ) from None
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote it."""
    return any((folder / name).is_file() for name in SAVED)


def _visible(folder: Path) -> Iterator[Path]:
    """Every file below it, in linked folders too, that is not hidden."""
    for root, folders, files in os.walk(folder, followlinks=True):
        above = Path(root).resolve()
        folders[:] = [name for name in folders if name[0] != "." and not above.is_relative_to((above / name).resolve())]
        yield from (Path(root) / name for name in files if name[0] != ".")
