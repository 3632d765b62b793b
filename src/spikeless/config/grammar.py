"""What a command line writes: `name(argument=value)+…` and `path=value`, read as literals, never evaluated."""

import ast
import contextlib
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, TypeVar

from spikeless.config.parts import find
from spikeless.config.serialise import coerce, is_slot
from spikeless.config.tree import get_at, replace_at
from spikeless.errors import UserError, nearest

__all__ = ["Call", "assigned", "named_modules", "parse_calls", "set_at"]

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One `name(argument=value, …)` of the grammar that `--with`, `--arms` and slots share."""

    name: str
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        inner = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        return f"{self.name}({inner})" if inner else self.name

    def build(self, room: str) -> Any:
        """Construct the part that this call names, its arguments checked against its fields.

        Raises:
            UserError: unknown part or argument, one that is missing, or a value of the wrong type.
        """
        part = find(room, self.name)
        if not isinstance(part, type) or not is_dataclass(part):
            if self.arguments:
                raise UserError(f"{self.name} takes no arguments")
            try:
                return part()
            except TypeError as error:
                raise UserError(f"{self.name} is no part: {error}; write a frozen dataclass") from None
        hints = typing.get_type_hints(part)
        known = [each.name for each in fields(part)]
        for each in fields(part):
            if each.name not in self.arguments and each.default is each.default_factory is MISSING:
                raise UserError(f"{self.name} lacks its argument {each.name!r}; write {self.name}({each.name}=…)")
        for key in self.arguments:
            if key not in known:
                raise UserError(f"{self.name} has no argument {key!r}; {nearest(key, known, 'argument')}")
        return part(**{k: coerce(v, hints[k], f"{self.name}({k}=…)") for k, v in self.arguments.items()})


_NAME = re.compile(r"\s*([A-Za-z_][\w.]*(?::[A-Za-z_]\w*)?)\s*")


def parse_calls(text: str, what: str = "technique") -> tuple[Call, ...]:
    """Parse `a(x=1)+b`: calls joined by `+`, arguments read as literals and never evaluated.

    A bare word as a value is a string, so `mlra(init=factor)` needs no quotes in a shell.

    Raises:
        UserError: not of this form.
    """
    calls, rest = [], text
    while True:
        head = _NAME.match(rest)
        if not head:
            raise UserError(f"cannot read the {what} {text!r} at {rest!r}; write name or name(argument=value)")
        rest, arguments = rest[head.end() :], {}
        if rest.startswith("("):
            inside, rest = _split_parenthesis(rest, text, what)
            arguments = _parse_arguments(inside, text, what)
        calls.append(Call(head.group(1), arguments))
        rest = rest.strip()
        if not rest:
            return tuple(calls)
        if not rest.startswith("+"):
            raise UserError(f"cannot read the {what} {text!r} at {rest!r}; join several with '+'")
        rest = rest[1:]


def _split_parenthesis(rest: str, text: str, what: str) -> tuple[str, str]:
    depth, quote = 0, ""
    for index, character in enumerate(rest):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character in "([{") - (character in ")]}")
            if depth == 0:
                return rest[1:index], rest[index + 1 :]
    raise UserError(f"cannot read the {what} {text!r}: a parenthesis is not closed")


def _parse_arguments(inside: str, text: str, what: str) -> dict[str, Any]:
    problem = UserError(f"cannot read the arguments in {text!r}; write argument=value with numbers, words or lists")
    try:
        call = ast.parse(f"f({inside})", mode="eval").body
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise problem from None
    if not isinstance(call, ast.Call) or call.args or any(k.arg is None for k in call.keywords):
        raise problem
    if len({k.arg for k in call.keywords}) < len(call.keywords):
        raise problem
    return {str(k.arg): _literal(k.value, problem) for k in call.keywords}


def _literal(node: ast.expr, problem: UserError) -> Any:
    if isinstance(node, ast.Name):
        return {"true": True, "false": False, "none": None}.get(node.id, node.id)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise problem from None


def assigned(assignment: str) -> tuple[str, ...]:
    """The paths that `path=value` sets: `optim=AdamW(lr=1)` sets `optim` and `optim.lr`."""
    path, _, text = (part.strip() for part in assignment.partition("="))
    try:
        calls = parse_calls(text)
    except UserError:
        return (path,)
    return (path, *(f"{path}.{key}" for key in calls[0].arguments)) if len(calls) == 1 else (path,)


def named_modules(calls: Iterable[str], assignments: Iterable[str] = ()) -> set[str]:
    """The modules outside the package that a command line names: `my_lab.tricks` of `my_lab.tricks:Foo(by=3)`.

    Args:
        calls: of `--with`.
        assignments: of `--set`; what is no part, as a data spec, names no module.
    """
    names = [call.name for text in calls for call in parse_calls(text)]
    for assignment in assignments:
        path, _, text = assignment.partition("=")
        with contextlib.suppress(UserError):
            names += [call.name for call in parse_calls(text) if not path.strip().startswith("data.")]
    return {name.partition(":")[0] for name in names if ":" in name}


def set_at(config: T, assignment: str) -> T:
    """Apply one `path=value` from the command line; the value is a literal or, for a slot, `name(…)`.

    Raises:
        UserError: not of the form path=value, no such path, or a value of the wrong type.
    """
    path, equals, text = assignment.partition("=")
    path = path.strip()
    if not equals or not path:
        raise UserError(f"--set {assignment!r}: write path=value, for example --set optim.lr=1e-3")
    get_at(config, path)
    parent_path, _, name = path.rpartition(".")
    parent = get_at(config, parent_path) if parent_path else config
    if not is_dataclass(parent):
        raise UserError(f"--set {path}: set the whole of {parent_path!r} instead")
    hint = typing.get_type_hints(type(parent))[name]
    room = next(each for each in fields(parent) if each.name == name).metadata.get("room")
    value = _slot_value(text, hint, room, path) if room else coerce(_read_value(text), hint, path)
    return replace_at(config, {path: value})


def _slot_value(text: str, hint: Any, room: str, path: str) -> Any:
    if text.strip() in ("()", "none", "None"):
        return coerce(() if typing.get_origin(hint) is tuple else None, hint, path)
    calls = parse_calls(text, what=path)
    parts = tuple(call.build(room) for call in calls)
    for call, part in zip(calls, parts, strict=True):
        _refuse_other_kind(part, call.name, hint, path)
    if typing.get_origin(hint) is tuple:
        return parts
    if len(parts) != 1:
        raise UserError(f"{path} holds one part, not {len(parts)}")
    return parts[0]


def _refuse_other_kind(part: Any, name: str, hint: Any, path: str) -> None:
    """Stop at a part that lacks what the slot's protocol asks for."""
    for protocol in (hint, *typing.get_args(hint)):
        if is_slot(protocol):
            lacking = [each for each in vars(protocol) if not each.startswith("_") and not hasattr(part, each)]
            if lacking:
                kind = protocol.__name__
                raise UserError(f"{path}: {name} is no {kind}: it lacks {' and '.join(map(repr, lacking))}")


def _read_value(text: str) -> Any:
    text = text.strip()
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text
