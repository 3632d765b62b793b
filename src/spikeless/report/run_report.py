"""The report of runs: what was run, how it went, how it ended."""

from collections.abc import Sequence
from pathlib import Path

from spikeless.errors import UserError
from spikeless.report.arms import Arm, flatten, gather, text
from spikeless.report.figures import figures
from spikeless.report.page import write_page
from spikeless.report.record import RunRecord
from spikeless.report.table import caption, cell, columns, comparability, summary_rows
from spikeless.words import counted

__all__ = ["write_report"]

TEMPLATE = Path(__file__).with_name("report.html.jinja")


def write_report(records: Sequence[RunRecord], path: Path, title: str, command: str | None = None) -> None:
    """Write the report of one run or the comparison of several as one self-contained HTML file.

    Args:
        records: the runs; several seeds of one setting become one arm.
        path: the file to write, crash-safely.
        title: the page's heading.
        command: the command that reproduces the report, shown if given.

    Raises:
        UserError: no runs, or the file cannot be written.
    """
    if not records:
        raise UserError("a report needs at least one run; got none")
    arms, rows = gather(records), summary_rows(records)
    write_page(
        Path(path),
        TEMPLATE,
        title=title,
        sections=figures(arms),
        summary=one_line(arms),
        command=command,
        arms=arms,
        columns=columns(rows),
        rows=rows,
        cell=cell,
        caption=caption(records),
        remarks=comparability(records),
        messages=[
            (arm.run_name(record), message)
            for arm in arms
            for record in arm.records
            for message in (_began(record), record.status.get("message"), *map(": ".join, record.losses.items()))
            if message
        ],
        details={
            "Data": by_value(arms, "data"),
            "Config": by_value(arms, "config"),
            "Environment": by_value(arms, "environment"),
        },
        text=text,
    )


def _began(record: RunRecord) -> str | None:
    """Of a branch, where it began and what it changed there."""
    changes = ", ".join(f"{each['path']}: {each['old']} -> {each['new']}" for each in record.origin.get("changes", ()))
    return f"a branch of {record.branch}: {changes or 'nothing is changed'}" if record.branch else None


def one_line(arms: Sequence[Arm]) -> str:
    """What was run and how it ended, without a verdict."""
    records = [record for arm in arms for record in arm.records]
    recipes = " and ".join(dict.fromkeys(record.recipe for record in records))
    if len(records) == 1:
        summary = records[0].summary()
        size = f", {counted(summary.parameters, 'parameter')}" if summary.parameters else ""
        steps = summary.planned_steps or summary.steps
        return f"{arms[0].name} on {recipes}{size}, {counted(steps, 'step')}: {summary.outcome}"
    steps = sorted({record.summary().steps for record in records})
    span = (f"{steps[0]:,} to " if steps[0] < steps[-1] else "") + counted(steps[-1], "step")
    failed = sum(record.summary().failed for record in records)
    return (
        f"{counted(len(arms), 'arm')} on {recipes}: {counted(len(records), 'run')} of {span}, {failed or 'none'} failed"
    )


def by_value(arms: Sequence[Arm], field: str) -> dict[str, list[tuple[str, list[str]]]]:
    """For each dotted path of a record's dictionary its values, each with the runs that have it.

    A value that all runs share comes with no names. Paths whose values differ come first.
    """
    records = [(arm.run_name(record), flatten(getattr(record, field))) for arm in arms for record in arm.records]
    table: dict[str, list[tuple[str, list[str]]]] = {}
    for path in dict.fromkeys(path for _, values in records for path in values):
        runs: dict[str, list[str]] = {}
        for name, values in records:
            runs.setdefault(text(values[path]) if path in values else "not set", []).append(name)
        table[path] = [(value, names if len(runs) > 1 else []) for value, names in runs.items()]
    return dict(sorted(table.items(), key=lambda item: len(item[1]) == 1))
