"""Immutable configuration trees: replace a value at a path, diff two trees, find parts by name, (de)serialise.

A tree is made of frozen, keyword-only dataclasses. A field that is typed by a `Protocol` is a *slot*: it
holds any part that satisfies the protocol, and `slot(default, room=...)` says in which folder the
package's own parts for it live, one file each. Nothing here knows torch.
"""

from spikeless.config.grammar import Call, assigned, named_modules, parse_calls, set_at
from spikeless.config.parts import PACKAGE, find, names_in
from spikeless.config.serialise import coerce, from_dict, is_ours, not_ours, to_dict
from spikeless.config.tree import Change, diff, get_at, modules_of, parts_of, paths, replace_at, slot

__all__ = [
    "PACKAGE",
    "Call",
    "Change",
    "assigned",
    "coerce",
    "diff",
    "find",
    "from_dict",
    "get_at",
    "is_ours",
    "modules_of",
    "named_modules",
    "names_in",
    "not_ours",
    "parse_calls",
    "parts_of",
    "paths",
    "replace_at",
    "set_at",
    "slot",
    "to_dict",
]
