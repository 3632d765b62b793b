"""How text is read: what a document begins with, and what special tokens in text become."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from spikeless.errors import UserError, nearest

__all__ = ["Reading", "SpecialTokens", "split_reading"]

SpecialTokens = Literal["parsed", "text", "all"]
KEY = "special_tokens"
_OPTION = re.compile(rf",\s*{KEY}=([^,+]*)")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a tokenizer reads documents: decided when data are prepared, recorded, and obeyed wherever a model reads.

    The defaults are what spikeless 0.1.0 did, which recorded nothing.

    Attributes:
        beginning: ids before every document; without any, a document follows the end-of-text id of the one before it.
        special_tokens: what the spelling of a special token in a text becomes. "parsed": its id, as in transformers,
            but end-of-text stays text; "text": text like any other; "all": its id, end-of-text too.
    """

    beginning: tuple[int, ...] = ()
    special_tokens: SpecialTokens = "text"


def split_reading(spec: str) -> tuple[str, SpecialTokens | None]:
    """A corpus spec without its `special_tokens=`, and what that says; None if it says nothing.

    Raises:
        UserError: said twice, or something else than a choice that there is.
    """
    said = _OPTION.findall(spec)
    if not said:
        return spec, None
    (word, *more) = [each.strip() for each in said]
    if more:
        raise UserError(f"the corpus {spec!r} gives {KEY!r} twice")
    for choice in get_args(SpecialTokens):
        if word == choice:
            return _OPTION.sub("", spec), choice
    raise UserError(f"the corpus {spec!r}: {KEY}={word} is unknown; {nearest(word, get_args(SpecialTokens), 'choice')}")
