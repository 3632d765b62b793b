"""The grammar that corpora and tokenizers share: `NAME[:REST][,key=value]…`, read into a frozen dataclass."""

import ast
import contextlib
import dataclasses
import re
import typing
from typing import Any

from spikeless.config import coerce, find, names_in
from spikeless.errors import UserError, nearest

__all__ = ["parse_spec"]

_HEAD = re.compile(r"(?P<name>[^:,]*)(?::(?P<rest>.*?))?(?P<options>(?:,\s*[A-Za-z_]\w*=.*)?)", re.DOTALL)
_OPTION = re.compile(r",\s*(?=[A-Za-z_]\w*=)")
_WORDS = {"true": True, "false": False}


def parse_spec(spec: str, room: str, what: str) -> Any:
    """The part of `room` that a spec names: REST fills its first field, each key the field of that name.

    A comma belongs to REST unless `key=` follows it, so a path may hold commas. A part says in its class
    attribute `usage` how its spec is written. Nothing is evaluated: a field that is not text takes a literal.

    Raises:
        UserError: not of this form, an unknown name or key, a value missing, or one of the wrong type.
    """
    match = _HEAD.fullmatch(spec.strip())
    name = match["name"].strip() if match else ""
    if not match or not name:
        raise UserError(f"cannot read the {what} {spec!r}; write NAME, NAME:REST or NAME:REST,key=value")
    if name not in names_in(room):
        raise UserError(f"no {what} is called {name!r}; {nearest(name, names_in(room), what)}")
    part = find(room, name)
    fields = dataclasses.fields(part)
    known = [each.name for each in fields]
    texts = _texts(match["rest"], match["options"], known, f"{what} {spec!r}", part.usage)
    for field in fields:
        if field.name not in texts and field.default is dataclasses.MISSING:
            raise UserError(f"the {what} {spec!r} lacks its {field.name}; write {part.usage}")
    hints = typing.get_type_hints(part)
    where = f"{what} {spec!r}"
    return part(**{key: _value(text, hints[key], f"{where}, {key}") for key, text in texts.items()})


def _texts(rest: str | None, options: str, known: list[str], where: str, usage: str) -> dict[str, str]:
    texts = {}
    if rest:
        if not known:
            raise UserError(f"cannot read the {where}: nothing may follow the name; write {usage}")
        texts[known[0]] = rest.strip()
    for option in _OPTION.split(options)[1:]:
        key, _, text = option.partition("=")
        if key not in known[1:]:
            raise UserError(f"the {where} has an unknown key {key!r}; {nearest(key, known[1:], 'key')} (write {usage})")
        if key in texts:
            raise UserError(f"the {where} gives {key!r} twice")
        texts[key] = text.strip()
    return texts


def _value(text: str, hint: Any, where: str) -> Any:
    value: Any = text
    if hint is not str and str not in typing.get_args(hint):
        with contextlib.suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            value = _WORDS[text] if text in _WORDS else ast.literal_eval(text)
    return coerce(value, hint, where)
