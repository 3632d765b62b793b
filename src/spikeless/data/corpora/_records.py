"""What corpora of records share: the text in one field of a record, checked and made well-formed."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from spikeless.data.corpora import Tally
from spikeless.errors import UserError

__all__ = ["decoded", "missing_field", "text_of", "well_formed"]

_SURROGATE = re.compile("[\ud800-\udfff]")
NAMED_FIELDS = 20
_KINDS = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object", bytes: "bytes"}


def text_of(record: Mapping[str, Any], field: str, where: str) -> str:
    """The text in a field of a record; null is empty text.

    Raises:
        UserError: there is no such field, or it holds something else.
    """
    if field not in record:
        raise missing_field(field, record, where)
    value = record[field]
    if value is None:
        return ""
    if not isinstance(value, str):
        kind = _KINDS.get(type(value), type(value).__name__)
        raise UserError(f"{where}: the field {field!r} holds {kind}, not text; name a field of text with field=NAME")
    return value


def missing_field(field: str, fields: Iterable[str], where: str) -> UserError:
    """The error that names the fields there are."""
    names = [repr(name) for name in fields]
    shown = ", ".join(names[:NAMED_FIELDS]) + (", …" if len(names) > NAMED_FIELDS else "")
    return UserError(f"{where}: no field {field!r}; the fields are {shown or 'none'}: name one with field=NAME")


def decoded(raw: bytes, tally: Tally) -> str:
    """UTF-8 bytes as text; what is invalid becomes U+FFFD, and the document is counted as `invalid_utf8`."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        tally["invalid_utf8"] += 1
        return raw.decode("utf-8", "replace")


def well_formed(text: str, tally: Tally) -> str:
    """Text that UTF-8 can encode; each lone surrogate becomes U+FFFD, and the document is counted."""
    if not text.isascii() and _SURROGATE.search(text):
        tally["invalid_utf8"] += 1
        return _SURROGATE.sub("\ufffd", text)
    return text
