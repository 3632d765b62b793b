"""Immutable trees: paths, replacement, differences."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

from spikeless.errors import UserError, nearest

__all__ = ["Change", "diff", "get_at", "modules_of", "parts_of", "paths", "replace_at", "slot"]

T = TypeVar("T")


def slot(default: Any, room: str) -> Any:
    """A field for a replaceable part; `room` is the folder with the package's own choices for it."""
    return field(default=default, metadata={"room": room})


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


def modules_of(config: Any) -> set[str]:
    """The modules that define the parts of a tree."""
    return {type(part).__module__ for part in parts_of(config)}


def parts_of(config: Any) -> Iterator[Any]:
    """All parts of a tree, itself included."""
    if is_dataclass(config):
        yield config
    for _, value in _children(config):
        yield from parts_of(value)


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
