"""Do the ids that a tokenizer's files name mean the tokens that they claim? Asked once, when it is read."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from spikeless.errors import UserError

__all__ = ["refuse_other_ids", "refuse_wrong_claims", "vocabulary_of"]


def vocabulary_of(definition: str | Mapping[str, Any], spec: str) -> dict[str, int]:
    """Every token of a `tokenizer.json` with the id that the file gives it, those of the model first.

    Args:
        definition: the file's text, or what it holds.
        spec: for messages.

    Raises:
        UserError: it is no definition of a tokenizer.
    """
    try:
        data = json.loads(definition) if isinstance(definition, str) else definition
        model = data["model"]["vocab"]
        vocabulary = dict(model) if isinstance(model, dict) else {each[0]: index for index, each in enumerate(model)}
        vocabulary |= {each["content"]: each["id"] for each in data.get("added_tokens") or ()}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise UserError(f"the tokenizer {spec} is not a tokenizer definition that can be read: {error}") from None
    for token, number in vocabulary.items():
        if type(number) is not int or number < 0:
            raise UserError(
                f"the tokenizer {spec} gives the token {token!r} the id {number!r}; a whole number is needed"
            )
    return vocabulary


def refuse_wrong_claims(definition: Mapping[str, Any], vocabulary: Mapping[str, int], spec: str) -> None:
    """Refuse a post-processor, padding or unknown token whose id is another token's, or nobody's.

    Raises:
        UserError: naming the place, the token and both ids.
    """
    ends = max(vocabulary.values(), default=-1)
    for place, token, number in _claims(definition):
        actual = vocabulary.get(token)
        if actual == number or (place == "padding" and actual is None and 0 <= number <= ends):
            continue  # padding is switched off: an id of the vocabulary under a name that nobody else has harms nothing
        is_there = f"its vocabulary gives {token!r} the id {actual}" if actual is not None else f"there is no {token!r}"
        raise UserError(
            f"the tokenizer {spec}: the {place} of its tokenizer.json takes {number} for the id of {token!r}, but "
            f"{is_there}, and the ids end at {ends}; write the right id into the file"
        )


def refuse_other_ids(expected: Mapping[str, int], token_to_id: Callable[[str], int | None], spec: str) -> None:
    """`tokenizers` numbers added tokens itself, whatever a file says; a checkpoint's rows would not fit them.

    Raises:
        UserError: naming the token and both ids.
    """
    for token, number in expected.items():
        if token_to_id(token) != number:
            raise UserError(
                f"{spec}: the file gives {token!r} the id {number}, but tokenizers reads it as {token_to_id(token)}; "
                "added tokens must follow the vocabulary without a gap"
            )


def _claims(definition: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Where a definition names a token by its id: the place, the token, the id."""
    if padding := definition.get("padding"):
        yield "padding", padding["pad_token"], padding["pad_id"]
    processors = [definition.get("post_processor")]
    while processors:
        each = processors.pop() or {}
        processors += each.get("processors") or ()
        yield from (("post-processor", *each[kind]) for kind in ("cls", "sep") if kind in each)
        for special in (each.get("special_tokens") or {}).values():
            yield from (("post-processor", *pair) for pair in zip(special["tokens"], special["ids"], strict=True))
