"""What corpora of records share: how a document is picked from the fields of a record, checked and made well-formed."""

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from spikeless.data.corpora._chat import messages_of
from spikeless.data.corpora._files import FileCorpus
from spikeless.data.documents import Document, Tally, TokenIds
from spikeless.errors import UserError, nearest

__all__ = ["RECORD_KEYS", "Pick", "PickingCorpus", "RecordCorpus", "missing_field", "top_field", "well_formed"]

RECORD_KEYS = "[,field=NAME][,template=TEXT]"
"""How the usage of a corpus of records ends."""
DEFAULT_FIELD = "text"
NAMED_FIELDS = 20
RULE = "records-3"
_SURROGATE = re.compile("[\ud800-\udfff]")
_KINDS = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object", bytes: "bytes"}
_PART = re.compile(
    r"\\(?P<escaped>[nt\\\"'])|(?P<brace>\{\{|\}\})|\{(?P<name>[^{}]+)\}|(?P<stray>[{}])|(?P<text>[^\\{}]+|\\)"
)
_ESCAPES = {"n": "\n", "t": "\t"}


@dataclass(frozen=True, kw_only=True)
class Pick:
    """How a document is picked from a record: one field, or a template of several.

    A field holds text, messages or token ids. `a.b` is the field `b` of the object `a`, unless a field is called `a.b`.
    In a template `{name}` stands for the text or the whole number in a field, `\\n` and `\\t` for a newline and a tab,
    `{{` and `}}` for braces; nothing is evaluated.

    Raises:
        UserError: both are given, or a template that cannot be read.
    """

    field: str | None = None
    template: str | None = None

    def __post_init__(self):
        if self.template is not None and self.field is not None:
            raise UserError("field= and template= are both given; a template names its fields itself: leave field= out")
        if self.template is not None and not self.names:
            raise UserError(
                f"the template {self.template!r} names no field; write {{NAME}} where its text should stand"
            )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The fields that are read, and no others."""
        if self.template is None:
            return (DEFAULT_FIELD if self.field is None else self.field,)
        return tuple(dict.fromkeys(name for _, name in self._parts if name))

    @property
    def identity(self) -> tuple[str, ...]:
        """What decides the documents besides the records."""
        return (RULE, "template", self.template) if self.template is not None else (RULE, *self.names)

    def document(self, record: Mapping[str, Any], where: str, tally: Tally) -> Document | None:
        """The document in a record; None for null.

        Args:
            record: its fields; text as `str` or as bytes.
            where: the record, for messages.
            tally: what is repaired is counted here.

        Raises:
            UserError: there is no such field, or it holds something that is no document.
        """
        values = [field_of(record, name, where) for name in self.names]
        seen = Tally()
        if self.template is None:
            document = self._whole(values[0], where, seen)
        elif all(value is None for value in values):
            document = None
        else:
            document = self._filled(dict(zip(self.names, values, strict=True)), where, seen)
        tally.update(dict.fromkeys(seen, 1))
        return document

    @cached_property
    def _parts(self) -> tuple[tuple[str, str], ...]:
        """The template as pairs of literal text and the name of the field that follows it, or none."""
        parts = []
        for match in _PART.finditer(self.template or ""):
            if match["stray"]:
                raise UserError(
                    f"the template {self.template!r} has a brace without its partner at {match.start() + 1}; "
                    "write {NAME} for a field, {{ or }} for a brace"
                )
            escaped = match["escaped"]
            text = _ESCAPES.get(escaped, escaped) if escaped else match["brace"][0] if match["brace"] else match["text"]
            parts.append((text or "", (match["name"] or "").strip()))
        return tuple(parts)

    def _whole(self, value: Any, where: str, seen: Tally) -> Document | None:
        name = self.names[0]
        if value is None or isinstance(value, str | bytes):
            return None if value is None else well_formed(value, seen)
        where = f"{where}: the field {name!r}"
        if isinstance(value, list | tuple) and (not value or isinstance(value[0], dict)):
            return messages_of(value, where, lambda text: well_formed(text, seen))
        if isinstance(value, np.ndarray) or (isinstance(value, list | tuple) and type(value[0]) is int):
            return TokenIds(_ids(value, where))
        kind = _KINDS.get(type(value), type(value).__name__)
        raise UserError(f"{where} holds {kind}, not text; name a field of text, messages or token ids with field=NAME")

    def _filled(self, values: Mapping[str, Any], where: str, seen: Tally) -> str | None:
        texts = {"": ""}
        for name, value in values.items():
            if value is None:
                seen["null_in_template"] += 1
            elif type(value) is not int and not isinstance(value, str | bytes):
                kind = (
                    "a number that is not whole" if isinstance(value, float) else _KINDS.get(type(value), "something")
                )
                raise UserError(f"{where}: the field {name!r} holds {kind}; a template takes text and whole numbers")
            number = "" if value is None else str(value)
            texts[name] = well_formed(value, seen) if isinstance(value, str | bytes) else number
        if not any(text and not text.isspace() for text in texts.values()):
            return ""  # without anything of the record's own
        return "".join(text + texts[name] for text, name in self._parts)


@dataclass(frozen=True, kw_only=True)
class PickingCorpus(FileCorpus):
    """Files of records, from each of which a document is picked."""

    usage: ClassVar[str]
    kind: ClassVar[str]

    field: str | None = None
    """The field that holds the document; `text` if None."""

    template: str | None = None
    """Instead of a field: text with the names of several in braces."""

    def __post_init__(self):
        _ = self.pick  # what is wrong is said at once

    @cached_property
    def pick(self) -> Pick:
        """How a document is picked from a record."""
        return Pick(field=self.field, template=self.template)

    def identity(self) -> tuple[str, ...]:
        """The kind and the fields."""
        return self.kind, *self.pick.identity


@dataclass(frozen=True, kw_only=True)
class RecordCorpus(PickingCorpus):
    """Files that are read a record at a time."""

    @abstractmethod
    def records(self, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Stream the records of one file, each with its place for messages.

        Raises:
            UserError: the file is not what it should be.
        """

    def read(self, path: Path, tally: Tally) -> Iterator[Document | None]:
        """Stream one file.

        Raises:
            UserError: the file is not what it should be, or a record holds no document.
        """
        for where, record in self.records(path):
            yield self.pick.document(record, where, tally)


def field_of(record: Mapping[str, Any], name: str, where: str) -> Any:
    """What a field holds; a name with dots may lead into objects, and what is below null is null.

    Raises:
        UserError: there is no such field.
    """
    found = _below(record, name)
    if not found:
        raise missing_field(name, field_names(record), where)
    return found[0]


def _below(record: Mapping[str, Any], name: str) -> tuple[Any] | None:
    if name in record:
        return (record[name],)
    for dot in (at for at, character in enumerate(name) if character == "."):
        inner = record.get(name[:dot], ...)
        if inner is None:
            return (None,)
        if isinstance(inner, Mapping) and (found := _below(inner, name[dot + 1 :])):
            return found
    return None


def top_field(name: str, fields: Iterable[str]) -> str:
    """The field in which a name with dots begins: the one of just this name, or the shortest that leads to it."""
    fields = set(fields)
    begins = (name[:dot] for dot, character in enumerate(name) if character == ".")
    return name if name in fields else next((each for each in begins if each in fields), name)


def field_names(record: Mapping[str, Any]) -> Iterator[str]:
    """The names of a record's fields, those of its objects behind a dot."""
    for name, value in record.items():
        yield name
        if isinstance(value, Mapping):
            yield from (f"{name}.{inner}" for inner in field_names(value))


def missing_field(field: str, fields: Iterable[str], where: str) -> UserError:
    """The error that names the fields there are."""
    names = list(fields)
    close = nearest(field, names, "field")
    shown = ", ".join(map(repr, names[:NAMED_FIELDS])) + (", …" if len(names) > NAMED_FIELDS else "")
    hint = f"{close} The" if close.startswith("did you mean") else "the"
    return UserError(f"{where}: no field {field!r}; {hint} fields are {shown or 'none'}: name one with field=NAME")


def well_formed(text: str | bytes, tally: Tally) -> str:
    """Text that UTF-8 can encode: each bad byte and each lone surrogate becomes U+FFFD, counted as `invalid_utf8`."""
    if isinstance(text, bytes):
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError:
            tally["invalid_utf8"] += 1
            return text.decode("utf-8", "replace")
    if not text.isascii() and _SURROGATE.search(text):
        tally["invalid_utf8"] += 1
        return _SURROGATE.sub("\ufffd", text)
    return text


def _ids(values: Sequence[Any] | np.ndarray, where: str) -> np.ndarray:
    """Token ids as int64.

    Raises:
        UserError: something else stands among them.
    """
    for place, value in enumerate(() if isinstance(values, np.ndarray) else values):
        if type(value) is not int:
            raise UserError(f"{where} holds {value!r} at place {place}, among token ids; give whole numbers")
    ids = np.asarray(values, dtype=np.int64)
    if len(ids) and ids.min() < 0:
        raise UserError(f"{where} holds the token id {ids.min()}; ids are whole numbers from 0")
    return ids
