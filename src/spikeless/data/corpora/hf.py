"""Hugging Face datasets: a local folder of data files or of `save_to_disk`, or a name on the hub."""

import contextlib
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from spikeless.config import find
from spikeless.data.corpora._columns import check_columns, documents_of
from spikeless.data.corpora._files import file_hash
from spikeless.data.corpora._folders import DataFolder, format_of, read_folder, shortened, visible
from spikeless.data.corpora._records import RECORD_KEYS, Pick, top_field
from spikeless.data.documents import Document, Tally, kept
from spikeless.errors import UserError, nearest
from spikeless.files import content_hash, read_json
from spikeless.hub import hub_answers

__all__ = ["HuggingFace"]

SAVED = ("state.json", "dataset_dict.json")
"""What `Dataset.save_to_disk` and `DatasetDict.save_to_disk` leave in a folder."""
VALIDATION = ("validation", "valid", "val", "dev")
"""Names of splits that are held out if no other is named."""
NONE = "none"
BATCH_ROWS = 128
MESSAGE_CHARACTERS = 400
"""How much is passed on of what the library says."""


@dataclass(frozen=True, kw_only=True)
class HuggingFace:
    """Documents of one split of a dataset; no code of a dataset is ever run.

    A folder of data files is read where it lies, each file as the corpus of its format reads it. What `save_to_disk`
    wrote, and a dataset on the hub, are read through the library `datasets`. A hub dataset is downloaded into its
    cache, and served from there where the hub cannot be reached; with `streaming=true` it is read over the network,
    once per pass. Text that is blank or null is skipped and counted.
    """

    usage: ClassVar[str] = (
        f"hf:NAME_OR_DIR[,config=NAME][,split=NAME][,validation_split=NAME]{RECORD_KEYS}[,streaming=true]"
    )

    name: str
    config: str | None = None
    split: str = "train"
    field: str | None = None
    """The field that holds the document; `text` if None."""

    template: str | None = None
    """Instead of a field: text with the names of several in braces."""

    validation_split: str | None = None
    """The split of the validation documents; a split called `validation` if None and there is one, else some documents
    are split off, as for `none`."""

    streaming: bool | None = None
    """Read a hub dataset without a copy in the library's cache; a folder is read where it lies anyway."""

    def __post_init__(self):
        _ = self.pick  # what is wrong is said at once

    @cached_property
    def pick(self) -> Pick:
        """How a document is picked from a record."""
        return Pick(field=self.field, template=self.template)

    def documents(self, tally: Tally | None = None) -> Iterator[Document]:
        """Stream the documents for training.

        Raises:
            UserError: no such dataset, configuration, split or field, or the data cannot be read.
        """
        return self._documents(self.split, tally)

    def validation_documents(self, tally: Tally | None = None) -> Iterator[Document] | None:
        """Stream the documents of the validation split; None if there is none.

        Raises:
            UserError: as for `documents`.
        """
        return None if self._held_out is None else self._documents(self._held_out, tally)

    def fingerprint(self) -> str:
        """Identify the content: by the files of the splits, or by the commit of a hub dataset.

        Raises:
            UserError: no such dataset or split, or a file cannot be read.
        """
        splits = [self.split] if self._held_out is None else [self.split, "validation", self._held_out]
        if self._folder is None:
            content = ["hub", self.name, self._builder.hash, repr(self.config), *splits]
        elif _is_saved(self._folder):
            names = self._saved_files(self._folder)
            hashes = [file_hash(self._folder / name, "hf") for name in names]
            content = ["saved", *splits, *(part for pair in zip(names, hashes, strict=True) for part in pair)]
        else:
            content = ["files", repr(self._files.delimiter)]
            for split in splits[::2]:
                names = self._files.splits[self._known(split)]
                content += ["split", *(f"{format_of(name)} {file_hash(self._folder / name, 'hf')}" for name in names)]
        return content_hash("hf-2", *self.pick.identity, *map(str, content))

    def selection(self) -> str:
        """Which splits are read, and what is not.

        Raises:
            UserError: as for `documents`.
        """
        held_out = f"split {self._held_out} for validation" if self._held_out else "part of it for validation"
        others = [f"split {each}" for each in self._splits if each not in (self.split, self._held_out)]
        unread = [*others, *(self._files.unread if self._is_folder_of_files else ())]
        return f"split {self.split}, {held_out}" + (f"; not read: {shortened(unread)}" if unread else "")

    @property
    def _where(self) -> str:
        return f"hf: {self.name}"

    @property
    def _folder(self) -> Path | None:
        path = Path(os.path.expanduser(self.name))  # noqa: PTH111, which may raise
        if path.is_dir():
            return path
        if path.is_file():
            raise UserError(f"{self._where} is a file; write '{format_of(self.name) or 'jsonl'}:{self.name}'")
        if self.name.startswith((".", "~", "/")) or self.name.count("/") > 1:
            raise UserError(f"{self._where}: there is no such folder in {Path.cwd()}")
        return None

    @property
    def _is_folder_of_files(self) -> bool:
        return self._folder is not None and not _is_saved(self._folder)

    @cached_property
    def _files(self) -> DataFolder:
        assert self._folder is not None
        return read_folder(self._folder, self.config, self._where)

    @cached_property
    def _held_out(self) -> str | None:
        """The validation split."""
        if self.validation_split == NONE:
            return None
        if self.validation_split is not None:
            return self._known(self.validation_split)
        return next((name for name in VALIDATION if name in self._splits and name != self.split), None)

    def _known(self, split: str) -> str:
        if split not in self._splits:
            raise UserError(f"{self._where} has no split {split!r}; {nearest(split, self._splits, 'split')}")
        return split

    def _saved_files(self, folder: Path) -> list[str]:
        """What is visible in a saved dataset, and what it names itself; relative paths, sorted.

        Raises:
            UserError: some of it lies outside, where it could change unseen.
        """
        with _explained(self._where):  # a damaged one
            named = [
                str(state.parent / str(each["filename"]))
                for state in folder.rglob("state.json")
                for each in read_json(state).get("_data_files") or ()
            ]
        paths = {*named, *(str(path) for path in visible(folder))}
        for path in paths:
            if not Path(path).resolve().is_relative_to(folder.resolve()):
                raise UserError(f"{self._where}: {path} lies outside of the folder; copy it into the folder")
        return sorted({os.path.relpath(path, folder) for path in paths})

    @cached_property
    def _splits(self) -> Mapping[str, Any]:
        """Every split that can be read, by name: its files, or the library's dataset."""
        folder = self._folder
        if folder is not None and not _is_saved(folder):
            return self._files.splits
        datasets = _library()
        with _explained(self._where):
            if folder is not None:
                if self.config is not None:
                    raise UserError(f"{self._where} is a saved dataset, which has no configurations; leave config= out")
                self._saved_files(folder)
                saved = datasets.load_from_disk(str(folder))
                return dict(saved) if isinstance(saved, dict) else {str(saved.split or "train"): saved}
            if self.streaming:
                return dict(self._builder.as_streaming_dataset())
            self._builder.download_and_prepare()
            return dict(self._builder.as_dataset())

    @cached_property
    def _builder(self) -> Any:
        """The library's description of the hub's dataset, or of what its cache holds of it."""
        datasets = _library()
        online = hub_answers()
        with _explained(self._where) if online else _cached_only(datasets, self.name):
            return datasets.load_dataset_builder(self.name, self.config)

    def _documents(self, split: str, tally: Tally | None) -> Iterator[Document]:
        tally, empty = Tally() if tally is None else tally, True
        where = f"{self._where}, split {self._known(split)}"
        read = self._read_files if self._is_folder_of_files else self._read_rows
        for document in kept(read(split, where, tally), tally, where):
            empty = False
            yield document
        if empty:
            raise UserError(
                f"{where} holds no text in {', '.join(map(repr, self.pick.names))}; name another split or field"
            )

    def _read_files(self, split: str, where: str, tally: Tally) -> Iterator[Document | None]:
        """Every file as the corpus of its format reads it."""
        assert self._folder is not None
        for name in self._files.splits[split]:
            kind, path = str(format_of(name)), self._folder / name
            options = {} if kind == "text" else {"field": self.field, "template": self.template}
            if kind == "text" and self.pick != Pick():
                raise UserError(f"{where}: {name} is a text file, which has no fields; leave field= and template= out")
            if kind == "csv" and self._files.delimiter is not None:
                options["delimiter"] = self._files.delimiter
            try:
                yield from find("data.corpora", kind)(files=str(path), **options).read(path, tally)
            except OSError as error:
                raise UserError(f"{self._where}: cannot read {path}: {error.strerror or error}") from None

    def _read_rows(self, split: str, where: str, tally: Tally) -> Iterator[Document | None]:
        """The rows of one of the library's datasets; no picture or sound beside the columns is decoded."""
        dataset, rows = self._splits[split].with_format("arrow"), 0
        with _explained(where):
            if dataset.features is not None:
                check_columns(dataset.features.arrow_schema, self.pick, where)
                known = dataset.column_names
                dataset = dataset.select_columns(list(dict.fromkeys(top_field(n, known) for n in self.pick.names)))
            for table in dataset.iter(BATCH_ROWS):
                check_columns(table.schema, self.pick, where)
                yield from documents_of(table, self.pick, where, rows, tally)
                rows += len(table)


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
