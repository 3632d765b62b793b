"""Stabilisers: pure edits of a run description, one file each. The folder is the registry.

A technique is a frozen dataclass whose fields are its arguments and whose call maps a `RunConfig` to a
`RunConfig`. The head of its file has fixed fields that the docs table, the reports and the conflict check read.
"""

import ast
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from spikeless.config import Call, diff, find, names_in, parse_calls
from spikeless.errors import UserError
from spikeless.run import RunConfig

__all__ = ["HEADER_FIELDS", "Header", "Technique", "apply", "headers", "read_header"]

HEADER_FIELDS = ("Acts on", "Prevents", "Watch", "Cost", "Conflicts", "Reference")


class Technique(Protocol):
    """A pure edit of a run."""

    def __call__(self, run: RunConfig) -> RunConfig:
        """The run with the technique applied."""
        ...


@dataclass(frozen=True)
class Header:
    """The fixed fields of a technique's file."""

    name: str
    summary: str
    acts_on: str
    prevents: str
    watch: str
    cost: str
    conflicts: tuple[str, ...]
    reference: str


def parse_header(name: str, docstring: str) -> Header:
    """Read a technique's header from its file's docstring.

    Raises:
        UserError: a field is missing.
    """
    lines = inspect.cleandoc(docstring).splitlines()
    values: dict[str, str] = {}
    current = ""
    for line in lines[1:]:
        key, colon, value = line.partition(":")
        if colon and key in HEADER_FIELDS:
            current, values[key] = key, value.strip()
        elif current and line.startswith(" "):
            values[current] += " " + line.strip()
        else:
            current = ""
    missing = [each for each in HEADER_FIELDS if each not in values]
    if missing:
        raise UserError(f"the header of the technique {name!r} lacks {', '.join(missing)}")
    listed = values["Conflicts"]
    conflicts = () if listed == "none" else tuple(each.strip() for each in listed.split(","))
    return Header(
        name=name,
        summary=lines[0],
        acts_on=values["Acts on"],
        prevents=values["Prevents"],
        watch=values["Watch"],
        cost=values["Cost"],
        conflicts=conflicts,
        reference=values["Reference"],
    )


def read_header(name: str) -> Header | None:
    """The header of one of our techniques, read without importing it, or of an outside one, if it has any."""
    if ":" in name:
        docstring = inspect.getmodule(find("stabilizers", name)).__doc__ or ""  # type: ignore[union-attr]
        return parse_header(name, docstring) if "Acts on:" in docstring else None
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return parse_header(name, ast.get_docstring(ast.parse(source)) or "")


def headers() -> list[Header]:
    """The headers of all techniques in the folder, by name."""
    return [header for name in names_in("stabilizers") if (header := read_header(name))]


def apply(run: RunConfig, techniques: Sequence[str | Call]) -> RunConfig:
    """Apply techniques such as "mlra(rank=16)", in any order; the result does not depend on it.

    Raises:
        UserError: unknown technique or argument, one given twice, or two that exclude each other.
    """
    calls = [c for each in techniques for c in ((each,) if isinstance(each, Call) else parse_calls(each))]
    edits = [(call, call.build("stabilizers")) for call in sorted(calls, key=str)]
    for call, edit in edits:
        if not callable(edit):
            raise UserError(f"{call} is no technique: it cannot be called with a run; see `spikeless list stabilizers`")
    _refuse_conflicts(run, edits)
    for _, edit in edits:
        run = edit(run)
    return replace(run, techniques=(*run.techniques, *(str(call) for call, _ in edits)))


def _refuse_conflicts(run: RunConfig, edits: list[tuple[Call, Technique]]) -> None:
    written: dict[str, Call] = {}
    seen = {each.name: read_header(each.name) for text in run.techniques for each in parse_calls(text)}
    for call, edit in edits:
        if call.name in seen:
            raise UserError(f"the technique {call.name!r} is given twice")
        header = read_header(call.name)
        for other, other_header in seen.items():
            if (header and other in header.conflicts) or (other_header and call.name in other_header.conflicts):
                raise UserError(f"{call.name} and {other} exclude each other: {_reason(header, other_header)}")
        seen[call.name] = header
        for change in diff(run, edit(run)):
            if change.path in written:
                raise UserError(f"{call} and {written[change.path]} both set {change.path}; choose one of them")
            written[change.path] = call


def _reason(*headers: Header | None) -> str:
    known = [each for each in headers if each]
    if len({each.acts_on for each in known}) == 1:
        return f"both act on the {known[0].acts_on}"
    return "; ".join(f"{each.name} acts on the {each.acts_on}" for each in known)
