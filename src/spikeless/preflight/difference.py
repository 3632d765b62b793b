"""The difference of two audits: `spikeless audit A --against B`."""

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from spikeless.files import portable
from spikeless.preflight.findings import SEVERITIES, Finding
from spikeless.preflight.quantities import QUANTITIES
from spikeless.preflight.result import AuditReport
from spikeless.preflight.terminal import word
from spikeless.words import EMPTY, number

__all__ = ["difference", "difference_json"]


def difference_json(a: AuditReport, b: AuditReport) -> dict[str, Any]:
    """Strict JSON: of each quantity both values, and how the findings that do not pass differ."""
    quantities = {"score": (a.score, b.score)} | {
        key: (read(a.measured), read(b.measured)) for key, (_, read) in QUANTITIES.items()
    }
    only_a, only_b, changed = _compare(a.findings, b.findings)
    return portable(
        {
            "a": {"target": a.measured.model.name, "verdict": a.verdict},
            "b": {"target": b.measured.model.name, "verdict": b.verdict},
            "quantities": {key: {"a": one, "b": other} for key, (one, other) in quantities.items()},
            "findings": {
                "only_a": [_short(each) for each in only_a],
                "only_b": [_short(each) for each in only_b],
                "changed": [
                    {"key": old.key, "a": old.severity, "b": new.severity, "message": new.message}
                    for old, new in changed
                ],
            },
        }
    )


def difference(a: AuditReport, b: AuditReport) -> Group:
    """The same for the terminal."""
    names = (a.measured.model.name, b.measured.model.name)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", overflow="fold")
    for label, name in zip("AB", names, strict=True):
        table.add_column(escape(f"{label}: {name}"), justify="right", overflow="fold")
    table.add_column("B / A", justify="right")
    table.add_row("verdict", word(a.verdict), word(b.verdict), "")
    every = {"score": ("score", a.score, b.score)} | {
        key: (title, read(a.measured), read(b.measured)) for key, (title, read) in QUANTITIES.items()
    }
    for title, one, other in every.values():
        if one is not None or other is not None:
            table.add_row(escape(title), number(one), number(other), _ratio(one, other))
    parts: list[Table | Text] = [table]
    only_a, only_b, changed = _compare(a.findings, b.findings)
    for title, found in ((f"only in A, {names[0]}", only_a), (f"only in B, {names[1]}", only_b)):
        if found:
            parts.append(Text(f"Findings {title}:", style="bold"))
            parts += [Text.assemble("  ", word(each.severity), f" {each.where}: {each.message}") for each in found]
    if changed:
        parts.append(Text("Findings of another severity, A → B:", style="bold"))
        parts += [
            Text.assemble("  ", word(old.severity), " → ", word(new.severity), f" {new.where}: {new.message}")
            for old, new in changed
        ]
    if not (only_a or only_b or changed):
        parts.append(Text("The same findings."))
    return Group(*parts)


def _compare(
    a: Sequence[Finding], b: Sequence[Finding]
) -> tuple[list[Finding], list[Finding], list[tuple[Finding, Finding]]]:
    """Findings only in `a`, only in `b`, and those of another severity; what passes on both sides is left out."""
    left, right = _by_key(a), _by_key(b)
    only_a = [each for key, each in left.items() if key not in right and each.severity != "pass"]
    only_b = [each for key, each in right.items() if key not in left and each.severity != "pass"]
    both = [(each, right[key]) for key, each in left.items() if key in right]
    return only_a, only_b, [(old, new) for old, new in both if old.severity != new.severity]


def _by_key(findings: Sequence[Finding]) -> dict[str, Finding]:
    """The most severe finding of each key."""
    ordered = sorted(findings, key=lambda each: SEVERITIES.index(each.severity))
    return {each.key: each for each in ordered}


def _short(finding: Finding) -> dict[str, str]:
    return {"key": finding.key, "severity": finding.severity, "message": finding.message}


def _ratio(one: float | None, other: float | None) -> str:
    if one is None or other is None or one == 0:
        return EMPTY
    return number(other / one)
