"""An audit on the terminal: findings, numbers per layer, verdict; legible from 80 columns on."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from spikeless.preflight.findings import Finding, Severity
from spikeless.preflight.measurements import Measurements
from spikeless.preflight.quantities import QUANTITIES
from spikeless.preflight.result import AuditReport
from spikeless.preflight.summary import (
    audited,
    batch,
    layer_rows,
    passed,
    ranked,
    shown_layers,
    verdict,
    worst_layers,
)
from spikeless.report.fitting import FittingTable
from spikeless.words import counted, number

__all__ = ["render", "word"]

STYLES: dict[Severity, str] = {"fail": "bold red", "warn": "bold yellow", "pass": "green"}
WORDS: dict[Severity, str] = {"fail": "✗ fail", "warn": "! warn", "pass": "✓ pass"}
ALIKE = 3  # findings of one check and code that are shown in full
TITLES = {  # narrow enough for 80 columns
    "layer": "lay-\ner",
    "kind": "sub-\nlayer",
    "shortcut_min": "σ_x\nmin",
    "shortcut_median": "σ_x\nmedian",
    "estimate": "esti-\nmate",
    "bound": "bound",
    "measured": "mea-\nsured",
    "gradient_norm": "‖∂L/∂x‖",
    "logit_max": "logit\nmax",
    "entropy": "entropy\n[nats]",
    "predicted": "σ_x\npredicted",
    "gain": "1 + gain\npredicted",
}
LEAST = ("entropy", "logit_max", "shortcut_median", "gradient_norm", "bound", "estimate", "gain")
"""Columns that a narrow terminal does without, the least important one first."""


def render(report: AuditReport) -> Group:
    """The whole audit."""
    parts: list[RenderableType] = [Text(audited(report.measured), style="bold"), Text(batch(report.measured))]
    parts += [Text(f"not placed: {each}", style="yellow") for each in report.measured.model.unplaced]
    found = ranked(report.findings)
    parts += [Text(), _findings(found)] if found else []
    parts += [Text(), Text.assemble(word("pass") if found else "", " " if found else "", passed(report.findings))]
    numbers = _numbers(report.measured)
    parts += [Text(), numbers] if numbers.row_count else []
    parts += _layers(report.measured)
    parts += [Text(), Text.assemble("Verdict: ", word(report.verdict), f", {verdict(report)}")]
    if report.score is not None:
        parts.append(
            Text(f"Score: {number(report.score)} (larger: one step at the same rate changes the features more)")
        )
    return Group(*parts)


def word(severity: Severity) -> Text:
    """The severity as a sign and a word, coloured."""
    return Text(WORDS[severity], style=STYLES[severity])


def _findings(found: Sequence[Finding]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1, 1, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for _, group in groupby(_together(found), key=_family):
        alike = list(group)
        for each in alike[:ALIKE]:
            table.add_row(Text("accepted", style="dim") if each.accepted else word(each.severity), _told(each))
        if alike[ALIKE:]:
            places = ", ".join(each.where for each in alike[ALIKE:])
            table.add_row("", Text(f"and {len(alike[ALIKE:])} more {alike[0].code}: {places}"))
    return table


def _family(finding: Finding) -> tuple[bool, str, str, str]:
    return finding.accepted, finding.severity, finding.check, finding.code


def _together(found: Sequence[Finding]) -> Iterator[Finding]:
    """Findings alike one after the other, in the order in which the first of each comes."""
    families: dict[tuple[bool, str, str, str], list[Finding]] = {}
    for each in found:
        families.setdefault(_family(each), []).append(each)
    for alike in families.values():
        yield from alike


def _told(finding: Finding) -> Text:
    text = Text.assemble((finding.where, "bold"), f"  {finding.check}/{finding.code}\n", finding.message)
    if finding.accepted:
        return text.append("\nKnown from the baseline.")
    for words in (finding.why and f"Threshold: {finding.why}", finding.consequence):
        text.append(f"\n{words}" if words else "")
    if finding.advice:
        text.append("\nTo do: ", style="bold").append(finding.advice)
    for each in finding.suggestions:
        effect = f"{each.quantity} {number(each.before)} → {number(each.after)}"
        text.append(f"\n  {each.technique}: ", style="bold").append(effect)
        text.append(f" (cost: {each.cost})" if each.cost else "")
    return text


def _numbers(measured: Measurements) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for title, read in QUANTITIES.values():
        value = read(measured)
        if value is not None:
            table.add_row(escape(title), number(value))
    return table


def _layers(measured: Measurements) -> list[RenderableType]:
    every = list(dict.fromkeys(int(row["layer"]) for row in layer_rows(measured)))
    shown = shown_layers(every, worst_layers(measured))
    rows = layer_rows(measured, shown)
    if not rows:
        return []
    table = FittingTable({key: TITLES[key] for key in rows[0]}, rows, words=("kind",), least=LEAST)
    left_out = len(every) - len(shown)
    said = f"{left_out} of {counted(len(every), 'layer')} are left out: shown are the first, the last and the worst"
    return [table, *([Text(said)] if left_out else [])]
