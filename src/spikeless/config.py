"""Immutable configuration trees: replace a value at a path, diff two trees, find parts by name, (de)serialise.

A tree is made of frozen, keyword-only dataclasses. A field that is typed by a `Protocol` is a *slot*: it
holds any part that satisfies the protocol, and `slot(default, room=...)` says in which folder the
package's own parts for it live, one file each. This module knows no torch.
"""

import ast
import dataclasses
import functools
import importlib
import importlib.util
import pkgutil
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar

import cattrs
from cattrs.gen import make_dict_unstructure_fn

from spikeless.errors import UserError, nearest

__all__ = [
    "Call",
    "Change",
    "diff",
    "find",
    "from_dict",
    "get_at",
    "names_in",
    "parse_calls",
    "paths",
    "replace_at",
    "set_at",
    "slot",
    "to_dict",
]

T = TypeVar("T")
PACKAGE = "spikeless"


def slot(default: Any, room: str) -> Any:
    """A field for a replaceable part; `room` is the folder with the package's own choices for it."""
    return field(default=default, metadata={"room": room})


# --- parts by name ------------------------------------------------------------------------------


@functools.cache
def names_in(room: str) -> tuple[str, ...]:
    """The names of the parts in a room: the files of a folder, or the public dataclasses of one file."""
    module = importlib.import_module(f"{PACKAGE}.{room}")
    if not hasattr(module, "__path__"):
        return tuple(sorted(name for name in module.__all__ if is_dataclass(getattr(module, name))))
    return tuple(sorted(m.name for m in pkgutil.iter_modules(module.__path__) if not m.name.startswith("_")))


def find(room: str, name: str) -> Any:
    """The part called `name` in `room`, or `my_module:Part` from outside the package.

    Raises:
        UserError: no such file in the room; the message names the nearest ones.
    """
    if ":" in name:
        return _find_outside(name)
    if name not in names_in(room):
        what = room.rpartition(".")[2].rstrip("s")
        raise UserError(f"no {what} is called {name!r}; {nearest(name, names_in(room), what)}")
    module = importlib.import_module(f"{PACKAGE}.{room}")
    if not hasattr(module, "__path__"):
        return getattr(module, name)
    module = importlib.import_module(f"{PACKAGE}.{room}.{name}")
    (public,) = module.__all__
    return getattr(module, public)


def _find_outside(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    if not module_name or module_name.startswith("."):
        raise UserError(f"{name!r} names no module; write MODULE:NAME of an importable module")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{name!r} cannot be imported ({error}); write MODULE:NAME of an importable module") from None


@dataclass(frozen=True)
class Call:
    """One `name(argument=value, …)` of the grammar that `--with`, `--arms` and slots share."""

    name: str
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        inner = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        return f"{self.name}({inner})" if inner else self.name

    def build(self, room: str) -> Any:
        """Construct the part that this call names, its arguments checked against its fields.

        Raises:
            UserError: unknown part or argument, or a value of the wrong type.
        """
        part = find(room, self.name)
        if not self.arguments:
            return part()
        if not isinstance(part, type) or not is_dataclass(part):
            raise UserError(f"{self.name} takes no arguments")
        hints = typing.get_type_hints(part)
        known = [each.name for each in fields(part)]
        for key in self.arguments:
            if key not in known:
                raise UserError(f"{self.name} has no argument {key!r}; {nearest(key, known, 'argument')}")
        return part(**{k: coerce(v, hints[k], f"{self.name}({k}=…)") for k, v in self.arguments.items()})


_NAME = re.compile(r"\s*([A-Za-z_][\w.]*(?::[A-Za-z_]\w*)?)\s*")


def parse_calls(text: str, what: str = "technique") -> tuple[Call, ...]:
    """Parse `a(x=1)+b`: calls joined by `+`, arguments read as literals and never evaluated.

    A bare word as a value is a string, so `mlra(init=factor)` needs no quotes in a shell.

    Raises:
        UserError: not of this form.
    """
    calls, rest = [], text
    while True:
        head = _NAME.match(rest)
        if not head:
            raise UserError(f"cannot read the {what} {text!r} at {rest!r}; write name or name(argument=value)")
        rest, arguments = rest[head.end() :], {}
        if rest.startswith("("):
            inside, rest = _split_parenthesis(rest, text, what)
            arguments = _parse_arguments(inside, text, what)
        calls.append(Call(head.group(1), arguments))
        rest = rest.strip()
        if not rest:
            return tuple(calls)
        if not rest.startswith("+"):
            raise UserError(f"cannot read the {what} {text!r} at {rest!r}; join several with '+'")
        rest = rest[1:]


def _split_parenthesis(rest: str, text: str, what: str) -> tuple[str, str]:
    depth, quote = 0, ""
    for index, character in enumerate(rest):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character in "([{") - (character in ")]}")
            if depth == 0:
                return rest[1:index], rest[index + 1 :]
    raise UserError(f"cannot read the {what} {text!r}: a parenthesis is not closed")


def _parse_arguments(inside: str, text: str, what: str) -> dict[str, Any]:
    problem = UserError(f"cannot read the arguments in {text!r}; write argument=value with numbers, words or lists")
    try:
        call = ast.parse(f"f({inside})", mode="eval").body
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise problem from None
    if not isinstance(call, ast.Call) or call.args or any(k.arg is None for k in call.keywords):
        raise problem
    if len({k.arg for k in call.keywords}) < len(call.keywords):
        raise problem
    return {str(k.arg): _literal(k.value, problem) for k in call.keywords}


def _literal(node: ast.expr, problem: UserError) -> Any:
    if isinstance(node, ast.Name):
        return {"true": True, "false": False, "none": None}.get(node.id, node.id)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise problem from None


# --- paths --------------------------------------------------------------------------------------


def _children(config: Any) -> Iterator[tuple[str, Any]]:
    if is_dataclass(config):
        yield from ((each.name, getattr(config, each.name)) for each in fields(config))
    elif isinstance(config, tuple):
        yield from ((str(index), value) for index, value in enumerate(config))


def paths(config: Any, prefix: str = "") -> list[str]:
    """All dotted paths of a tree, branches before their leaves."""
    found = []
    for name, value in _children(config):
        found += [prefix + name, *paths(value, f"{prefix}{name}.")]
    return found


def get_at(config: Any, path: str) -> Any:
    """The value at a dotted path.

    Raises:
        UserError: no such path; the message names the nearest ones.
    """
    value = config
    for name in path.split("."):
        children = dict(_children(value))
        if name not in children:
            raise UserError(f"the configuration has no {path!r}; {nearest(path, paths(config), 'path')}")
        value = children[name]
    return value


def replace_at(config: T, changes: Mapping[str, Any]) -> T:
    """A copy of `config` with the values at some dotted paths replaced.

    Raises:
        UserError: no such path.
    """
    for path, value in changes.items():
        get_at(config, path)
        config = _replace(config, path.split("."), value)
    return config


def _replace(node: Any, names: list[str], value: Any) -> Any:
    name, rest = names[0], names[1:]
    if isinstance(node, tuple):
        index = int(name)
        return (*node[:index], _replace(node[index], rest, value) if rest else value, *node[index + 1 :])
    return dataclasses.replace(node, **{name: _replace(getattr(node, name), rest, value) if rest else value})


def set_at(config: T, assignment: str) -> T:
    """Apply one `path=value` from the command line; the value is a literal or, for a slot, `name(…)`.

    Raises:
        UserError: not of the form path=value, no such path, or a value of the wrong type.
    """
    path, equals, text = assignment.partition("=")
    path = path.strip()
    if not equals or not path:
        raise UserError(f"--set {assignment!r}: write path=value, for example --set optim.lr=1e-3")
    get_at(config, path)
    parent_path, _, name = path.rpartition(".")
    parent = get_at(config, parent_path) if parent_path else config
    if not is_dataclass(parent):
        raise UserError(f"--set {path}: set the whole of {parent_path!r} instead")
    hint = typing.get_type_hints(type(parent))[name]
    room = next(each for each in fields(parent) if each.name == name).metadata.get("room")
    value = _slot_value(text, hint, room, path) if room else coerce(_read_value(text), hint, path)
    return replace_at(config, {path: value})


def _slot_value(text: str, hint: Any, room: str, path: str) -> Any:
    if text.strip() in ("()", "none", "None"):
        return coerce(() if typing.get_origin(hint) is tuple else None, hint, path)
    parts = tuple(call.build(room) for call in parse_calls(text, what=path))
    if typing.get_origin(hint) is tuple:
        return parts
    if len(parts) != 1:
        raise UserError(f"{path} holds one part, not {len(parts)}")
    return parts[0]


def _read_value(text: str) -> Any:
    text = text.strip()
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


# --- differences --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """One difference between two trees."""

    path: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.path}: {self.old!r} -> {self.new!r}"


def diff(old: Any, new: Any, prefix: str = "") -> list[Change]:
    """What differs between two trees, leaf by leaf; a part that was swapped for another is one change."""
    same_shape = type(old) is type(new) and (
        is_dataclass(old) or (isinstance(old, tuple) and len(old) == len(new) and any(map(is_dataclass, old)))
    )
    if not same_shape:
        return [] if type(old) is type(new) and old == new else [Change(prefix.rstrip("."), old, new)]
    pairs = zip(_children(old), _children(new), strict=True)
    return [change for (name, a), (_, b) in pairs for change in diff(a, b, f"{prefix}{name}.")]


# --- (de)serialisation ---------------------------------------------------------------------------


def _is_slot(hint: Any) -> bool:
    return getattr(hint, "_is_protocol", False)


def _tag(value: Any) -> str:
    module = type(value).__module__.removeprefix(f"{PACKAGE}.")
    return f"{module}:{type(value).__qualname__}"


def _unstructure_slot(value: Any) -> dict[str, Any]:
    return {"type": _tag(value), **_converter.unstructure(value)}


def _structure_slot(data: Any, hint: Any) -> Any:
    if is_dataclass(data) and not isinstance(data, type):
        return data
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise ValueError(f"expected a part with a 'type', got {data!r}")
    module_name, _, name = data["type"].partition(":")
    full = f"{PACKAGE}.{module_name}"
    part = None
    if re.fullmatch(r"[a-z_0-9]+(\.[a-z_0-9]+)*", module_name):
        try:
            part = vars(importlib.import_module(full)).get(name)
        except ImportError:
            part = None
    if not (isinstance(part, type) and is_dataclass(part) and part.__module__ == full):
        raise UserError(
            f"the stored configuration uses {data['type']!r}, which is not part of {PACKAGE}; "
            "give the technique that brings it again with --with"
        )
    return _converter.structure({key: value for key, value in data.items() if key != "type"}, part)


def _scalar(kind: type) -> Any:
    def structure(value: Any, _: Any) -> Any:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if type(value) is not kind:
            names = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}
            raise TypeError(f"expected {names[kind]}, got {value!r}")
        return value

    return structure


def _structure_tuple(value: Any, hint: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise TypeError(f"expected a list, got {value!r}")
    (item, *_) = typing.get_args(hint)
    return tuple(_converter.structure(each, item) for each in value)


def _structure_union(value: Any, hint: Any) -> Any:
    problems = []
    for choice in typing.get_args(hint):
        if choice is types.NoneType:
            if value is None:
                return None
            continue
        try:
            return _converter.structure(value, choice)
        except UserError:
            raise
        except Exception as error:
            problems.append(str(error))
    raise TypeError(" or ".join(dict.fromkeys(problems)) or f"unexpected {value!r}")


def _structure_literal(value: Any, hint: Any) -> Any:
    choices = typing.get_args(hint)
    if value not in choices:
        raise TypeError(f"expected one of {', '.join(map(str, choices))}, got {value!r}")
    return value


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


_converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=False)
for _kind in (int, float, str, bool):
    _converter.register_structure_hook(_kind, _scalar(_kind))
_converter.register_structure_hook_func(lambda hint: typing.get_origin(hint) is tuple, _structure_tuple)
_converter.register_structure_hook_func(lambda hint: typing.get_origin(hint) is Literal, _structure_literal)
_converter.register_structure_hook_func(_is_union, _structure_union)
_converter.register_structure_hook_func(_is_slot, _structure_slot)
_converter.register_unstructure_hook_func(_is_slot, _unstructure_slot)
_converter.register_unstructure_hook_func(
    lambda hint: _is_union(hint) and any(map(_is_slot, typing.get_args(hint))),
    lambda value: _unstructure_slot(value) if is_dataclass(value) else value,
)
_converter.register_unstructure_hook_factory(is_dataclass, lambda part: make_dict_unstructure_fn(part, _converter))


def coerce(value: Any, hint: Any, where: str) -> Any:
    """`value` checked against a type annotation (whole numbers pass as floats).

    Raises:
        UserError: a value of the wrong type, naming `where`.
    """
    try:
        return _converter.structure(value, hint)
    except UserError:
        raise
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"{where}: {error}") from None


def to_dict(config: Any) -> dict[str, Any]:
    """The tree as plain dicts, lists and scalars; a part in a slot carries its `type`."""
    return _converter.unstructure(config)


def from_dict(data: Any, root: type[T]) -> T:
    """The inverse of `to_dict`; only parts of this package can be named.

    Raises:
        UserError: unknown or missing fields, values of the wrong type, or a part from elsewhere.
    """
    try:
        return _converter.structure(data, root)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"this is not a configuration that this version of {PACKAGE} can read: {error}") from None
