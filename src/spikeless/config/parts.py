"""Parts by name: a folder, or a file with several parts in it, is the registry."""

import functools
import importlib
import pkgutil
from dataclasses import is_dataclass
from typing import Any

from spikeless.errors import UserError, nearest

__all__ = ["PACKAGE", "find", "names_in"]

PACKAGE = "spikeless"


@functools.cache
def names_in(room: str) -> tuple[str, ...]:
    """The names of the parts in a room: the files of a folder, or the public dataclasses of one file."""
    module = importlib.import_module(f"{PACKAGE}.{room}")
    if not hasattr(module, "__path__"):
        return tuple(sorted(name for name in module.__all__ if is_dataclass(getattr(module, name))))
    files = (m.name for m in pkgutil.iter_modules(module.__path__) if not m.ispkg)
    return tuple(sorted(name for name in files if not name.startswith("_")))


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
