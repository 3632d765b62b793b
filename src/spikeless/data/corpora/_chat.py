"""Messages of a chat as records hold them, in OpenAI's form or ShareGPT's."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spikeless.data.documents import Messages
from spikeless.errors import UserError

__all__ = ["messages_of"]

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "function_response": "tool",
    "observation": "tool",
}
"""What ShareGPT's `from` says, as a role."""


def messages_of(turns: Sequence[Any], where: str, text: Callable[[str], str]) -> Messages:
    """A list of `{role, content}` or of `{from, value}` as messages; fields that are null are left out.

    Args:
        turns: as the record holds them.
        where: the field, for messages of errors.
        text: makes text well-formed.

    Raises:
        UserError: a message without a role or text, or with content that is not text.
    """
    return Messages(tuple(_message(turn, f"{where}, message {number}", text) for number, turn in enumerate(turns, 1)))


def _message(turn: Any, where: str, text: Callable[[str], str]) -> Mapping[str, Any]:
    if not isinstance(turn, Mapping):
        raise UserError(f"{where} is {type(turn).__name__}, not an object; write messages as {{role, content}}")
    given = {key: value for key, value in turn.items() if value is not None}
    if "role" not in given and "from" in given:
        speaker = given.pop("from")
        if speaker not in _ROLES:
            raise UserError(f"{where} is from {speaker!r}, which is no role; known are {', '.join(map(repr, _ROLES))}")
        given = {"role": _ROLES[speaker], "content": given.pop("value", None), **given}
    role, content = given.get("role"), given.get("content")
    if not isinstance(role, str):
        names = ", ".join(map(repr, given)) or "none"
        raise UserError(f"{where} has no role (its fields are {names}); write messages as {{role, content}}")
    if content is None and not given.get("tool_calls"):
        raise UserError(f"{where} has no content; give it some, or leave it out")
    return given | {"role": role, "content": _content(content, where, text)}


def _content(content: Any, where: str, text: Callable[[str], str]) -> str:
    """Text, or the texts of a list of parts, one after another."""
    if content is None:
        return ""
    if isinstance(content, str):
        return text(content)
    if not isinstance(content, list | tuple):
        raise UserError(f"{where} has content that is {type(content).__name__}; give text")
    texts = []
    for part in content:
        if not isinstance(part, Mapping) or part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise UserError(f"{where} has a part of the type {kind!r}; only text can be trained on")
        texts.append(text(part["text"]))
    return "".join(texts)
