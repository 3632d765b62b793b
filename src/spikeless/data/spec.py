"""The grammar that corpora and tokenizers share: `NAME[:REST][,key=value]…`, read into a frozen dataclass."""

import ast
import contextlib
import dataclasses
import re
import typing
from typing import Any

from spikeless.config import coerce, find, names_in
from spikeless.errors import UserError, nearest

__all__ = ["parse_spec", "split_unquoted"]

_HEAD = re.compile(r"(?P<name>[^:,]*)(?::(?P<rest>.*))?", re.DOTALL)
_OPTION = re.compile(r",\s*(?=[A-Za-z_]\w*=)")
_QUOTED = re.compile(
    r"""(?<=[:=])(?P<mark>["'])(?P<text>(?:\\.|(?!(?P=mark))[^\\])*)(?P=mark)(?=\s*(?:[,+]|$))""", re.DOTALL
)
_WORDS = {"true": True, "false": False}


def parse_spec(spec: str, room: str, what: str) -> Any:
    """The part of `room` that a spec names: REST fills its first field, each key the field of that name.

    A comma belongs to REST unless `key=` follows it, so a path may hold commas. REST or a value in quotation marks may
    hold anything; `\\"` is one of these marks. A part says in its class attribute `usage` how its spec is written.
    Nothing is evaluated: a field that is not text takes a literal.

    Raises:
        UserError: not of this form, an unknown name or key, a value missing, or one of the wrong type.
    """
    head, *options = split_unquoted(_OPTION, spec.strip())
    match = _HEAD.fullmatch(head)
    name = match["name"].strip() if match else ""
    if not match or not name:
        raise UserError(f"cannot read the {what} {spec!r}; write NAME, NAME:REST or NAME:REST,key=value")
    if name not in names_in(room):
        raise UserError(f"no {what} is called {name!r}; {nearest(name, names_in(room), what)}")
    part = find(room, name)
    fields = dataclasses.fields(part)
    known = [each.name for each in fields]
    texts = _texts(match["rest"], options, known, f"{what} {spec!r}", part.usage)
    for field in fields:
        if field.name not in texts and field.default is dataclasses.MISSING:
            raise UserError(f"the {what} {spec!r} lacks its {field.name}; write {part.usage}")
    hints = typing.get_type_hints(part)
    where = f"{what} {spec!r}"
    return part(**{key: _value(text, hints[key], f"{where}, {key}") for key, text in texts.items()})


def split_unquoted(separator: re.Pattern[str], text: str) -> list[str]:
    """Split at a separator, but nowhere inside of a value in quotation marks."""
    spans = [match.span() for match in _QUOTED.finditer(text)]
    pieces, start = [], 0
    for match in separator.finditer(text):
        if not any(begin <= match.start() < end for begin, end in spans):
            pieces.append(text[start : match.start()])
            start = match.end()
    return [*pieces, text[start:]]


def _unquoted(before: str, text: str) -> str:
    """A value without white space or quotation marks around it."""
    match = _QUOTED.fullmatch(before + text.strip(), 1)
    return re.sub(r"\\([\"'])", r"\1", match["text"]) if match else text.strip()


def _texts(rest: str | None, options: list[str], known: list[str], where: str, usage: str) -> dict[str, str]:
    texts = {}
    if rest:
        if not known:
            raise UserError(f"cannot read the {where}: nothing may follow the name; write {usage}")
        texts[known[0]] = _unquoted(":", rest)
    for option in options:
        key, _, text = option.partition("=")
        if key not in known[1:]:
            quote = " (a value with a comma and a word= in it needs quotation marks)" if "template" in texts else ""
            hint = nearest(key, known[1:], "key")
            raise UserError(f"the {where} has an unknown key {key!r}{quote}; {hint} (write {usage})")
        if key in texts:
            raise UserError(f"the {where} gives {key!r} twice")
        texts[key] = _unquoted("=", text)
    return texts


def _value(text: str, hint: Any, where: str) -> Any:
    value: Any = text
    if hint is not str and str not in typing.get_args(hint):
        with contextlib.suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            value = _WORDS[text] if text in _WORDS else ast.literal_eval(text)
    return coerce(value, hint, where)
