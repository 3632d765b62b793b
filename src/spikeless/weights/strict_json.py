"""JSON from an untrusted file: no duplicate keys, no depth that breaks the reader."""

import json
from typing import Any

from spikeless.errors import UserError

__all__ = ["parse_object"]


def parse_object(raw: bytes | bytearray, where: str) -> dict[str, Any]:
    """The JSON object that `raw` holds.

    Raises:
        UserError: it is not JSON, a key appears twice, or it is no object; the message begins with `where`.
    """
    try:
        data = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        raise UserError(f"{where}: the JSON is nested too deeply") from None
    except ValueError as error:  # also invalid UTF-8, and numbers of thousands of digits
        raise UserError(f"{where}: not valid JSON: {str(error)[:200]}") from None
    if not isinstance(data, dict):
        raise UserError(f"{where}: expected a JSON object, got {type(data).__name__}")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice!r} appears twice")
    return data
