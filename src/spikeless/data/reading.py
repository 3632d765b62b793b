"""How text is read: what a document begins with, and what special tokens in text become."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from spikeless.data.spec import split_unquoted
from spikeless.errors import UserError, nearest

__all__ = ["Reading", "SpecialTokens", "split_reading"]

SpecialTokens = Literal["parsed", "text", "all"]
KEY = "special_tokens"
_OPTION = re.compile(r",\s*(?=[A-Za-z_]\w*=)")


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
    head, *options = split_unquoted(_OPTION, spec)
    said = [each.partition("=")[2].strip() for each in options if each.startswith(f"{KEY}=")]
    if not said:
        return spec, None
    if len(said) > 1:
        raise UserError(f"the corpus {spec!r} gives {KEY!r} twice")
    for choice in get_args(SpecialTokens):
        if said[0] == choice:
            return ",".join([head, *(each for each in options if not each.startswith(f"{KEY}="))]), choice
    known = nearest(said[0], get_args(SpecialTokens), "choice")
    raise UserError(f"the corpus {spec!r}: {KEY}={said[0]} is unknown; {known}")
