"""Trees to plain data and back, with values checked against their annotations."""

import contextlib
import importlib
import math
import re
import sys
import types
import typing
from collections.abc import Collection
from contextvars import ContextVar
from dataclasses import is_dataclass
from typing import Any, Literal, TypeVar

import cattrs
from cattrs.gen import make_dict_unstructure_fn

from spikeless.config.parts import PACKAGE
from spikeless.errors import UserError

__all__ = ["coerce", "from_dict", "is_ours", "is_slot", "not_ours", "to_dict"]

T = TypeVar("T")

_trusted: ContextVar[Collection[str]] = ContextVar("trusted", default=())


def is_slot(hint: Any) -> bool:
    """True for a protocol: a field that it annotates holds any part of its kind."""
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
    part = _part(data["type"])
    if part is None:
        raise UserError(not_ours(data["type"]))
    return _converter.structure({key: value for key, value in data.items() if key != "type"}, part)


def _part(tag: str) -> type | None:
    """The part that a stored `type` names, of this package or of a module that is trusted."""
    module_name, _, name = tag.partition(":")
    trusted = _is_trusted(module_name)
    full = module_name if trusted else f"{PACKAGE}.{module_name}"
    part = None
    if trusted or re.fullmatch(r"[a-z_0-9]+(\.[a-z_0-9]+)*", module_name):
        try:
            part = vars(importlib.import_module(full)).get(name)
        except ImportError:
            part = None
    return part if isinstance(part, type) and is_dataclass(part) and part.__module__ == full else None


def not_ours(tag: str) -> str:
    """What is wrong with stored data that name code from outside the package, and the way out."""
    if _is_trusted(tag.partition(":")[0]):
        return f"the stored configuration uses {tag!r}, which is not there: the module has no such part any more"
    return (
        f"the stored configuration uses {tag!r}, which is not part of {PACKAGE}, and what is stored never imports code "
        f"from elsewhere; if you trust it, name it again: --with {tag}"
    )


def is_ours(data: Any) -> bool:
    """True if stored data name no part from outside the package; nothing outside it is imported."""
    if isinstance(data, dict):
        named = data.get("type")
        return (not isinstance(named, str) or _part(named) is not None) and all(map(is_ours, data.values()))
    return all(map(is_ours, data)) if isinstance(data, list | tuple) else True


def _is_trusted(module_name: str) -> bool:
    """True for a module that the user named, and for what such a module imported from its own package."""
    trusted = _trusted.get()
    if module_name in trusted:
        return True
    siblings = [each for each in trusted if each.partition(".")[0] == module_name.partition(".")[0]]
    for each in siblings:
        with contextlib.suppress(ImportError):
            importlib.import_module(each)
    return bool(siblings) and module_name in sys.modules


def _scalar(kind: type) -> Any:
    def structure(value: Any, _: Any) -> Any:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if kind is float and isinstance(value, float) and not math.isfinite(value):
            raise TypeError(f"expected a finite number, got {value!r}")
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
_converter.register_structure_hook_func(is_slot, _structure_slot)
_converter.register_unstructure_hook_func(is_slot, _unstructure_slot)
_converter.register_unstructure_hook_func(
    lambda hint: _is_union(hint) and any(map(is_slot, typing.get_args(hint))),
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


def from_dict(data: Any, root: type[T], trusted: Collection[str] = ()) -> T:
    """The inverse of `to_dict`; only parts of this package, and of modules that are trusted, can be named.

    Args:
        data: plain dicts, lists and scalars.
        root: what they describe.
        trusted: modules outside the package that the user has named.

    Raises:
        UserError: unknown or missing fields, values of the wrong type, or a part from elsewhere.
    """
    token = _trusted.set(trusted)
    try:
        return _converter.structure(data, root)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"this is not a configuration that this version of {PACKAGE} can read: {error}") from None
    finally:
        _trusted.reset(token)
