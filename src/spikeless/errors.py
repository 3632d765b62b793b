"""Errors that a user can act on: what was wrong, where, and what would be right."""

import difflib
from collections.abc import Iterable

from spikeless.words import plural

__all__ = ["SpikelessWarning", "UnhealthyRun", "UserError", "nearest"]


class UserError(ValueError):
    """Wrong use or bad input. The command line prints the message alone and exits with 2."""


class UnhealthyRun(RuntimeError):
    """A run that stopped itself (a non-finite loss, say) or a broken model. The command line prints it, exit code 1."""


class SpikelessWarning(UserWarning):
    """Something that went wrong and was survived: a corrupted checkpoint passed over, say."""


def nearest(name: str, valid: Iterable[str], what: str = "name") -> str:
    """The end of an error message: the valid names closest to `name`, or all of them if none is close."""
    names = sorted(set(valid))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if not close:  # a user who wrote the last part of a dotted path only
        close = [full for full in names if full.rpartition(".")[2] == name.rpartition(".")[2]][:3]
    if close:
        return f"did you mean {' or '.join(repr(each) for each in close)}?"
    return f"valid {plural(what)}: {', '.join(names) if names else 'none'}"
