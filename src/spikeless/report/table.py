"""The summary table: one row an arm, medians over seeds, nothing that failed left out."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from spikeless.report.arms import Arm, gather
from spikeless.report.record import RunRecord, Summary

__all__ = ["COLUMNS", "caption", "cell", "summary_rows", "summary_table"]

COLUMNS = {
    "arm": "arm",
    "val_loss": "validation loss [nats/token]",
    "perplexity": "perplexity",
    "max_grad_norm": "largest grad norm",
    "tev_raw": "TEV raw",
    "tev_effective": "TEV effective",
    "parameters": "parameters",
    "tokens_per_second": "tokens/s",
}
TERMINAL_TITLES = {  # narrow enough for 80 columns
    "arm": "arm",
    "val_loss": "validation\nloss [nats\n/token]",
    "perplexity": "perplexity",
    "max_grad_norm": "largest\ngrad norm",
    "tev_raw": "TEV\nraw",
    "tev_effective": "TEV\neffec-\ntive",
    "parameters": "para-\nmeters",
    "tokens_per_second": "tokens\n/s",
}
FORMATS = {"perplexity": ",.1f", "max_grad_norm": ",.2f", "parameters": ",.0f", "tokens_per_second": ",.0f"}
EMPTY = "–"


def summary_rows(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """One row an arm, of numbers: the median over its runs; None where nothing was logged.

    A failed run's validation loss and perplexity count as infinite, whatever they were before it failed.
    """
    return [_row(arm) for arm in gather(records)]


def summary_table(records: Sequence[RunRecord]) -> Table:
    """The summary for the terminal."""
    table = Table(caption=caption(records), box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for key, title in TERMINAL_TITLES.items():
        table.add_column(escape(title), justify="left" if key == "arm" else "right", overflow="fold")
    for row in summary_rows(records):
        cells = [escape(_short(row[key]) if key == "parameters" else cell(row, key)) for key in COLUMNS]
        if row["outcome"] != "finished":
            cells[0] += f"\n[{'red' if row['failed'] else 'yellow'}]{escape(row['outcome'])}[/]"
        table.add_row(*cells)
    return table


def caption(records: Sequence[RunRecord]) -> str:
    """What the numbers rest on: how many seeds."""
    counts = sorted({arm.seeds for arm in gather(records)})
    if not counts or counts == [1]:
        return "one seed: an illustration"
    seeds = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    return f"median over {seeds} seeds an arm"


def cell(row: dict[str, Any], key: str) -> str:
    """A table entry as text."""
    value = row[key]
    if value is None:
        return EMPTY
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return "failed" if key == "val_loss" else "∞" if value == math.inf else str(value)
    return f"{value:{FORMATS.get(key, '.4f')}}"


def _short(number: float | None) -> str:
    """A count to three digits: 1.46M."""
    if number is None:
        return EMPTY
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def _row(arm: Arm) -> dict[str, Any]:
    summaries = [record.summary() for record in arm.records]

    def middle(value: Callable[[Summary], float | None]) -> float | None:
        values = [number for number in map(value, summaries) if number is not None]
        return median(math.inf if math.isnan(number) else number for number in values) if values else None

    return {
        "arm": arm.name,
        "runs": len(summaries),
        "seeds": arm.seeds,
        "failed": sum(summary.failed for summary in summaries),
        "outcome": _outcome(summaries),
        "val_loss": middle(lambda summary: math.inf if summary.failed else summary.final_val_loss),
        "perplexity": middle(lambda summary: math.inf if summary.failed else summary.perplexity),
        "max_grad_norm": middle(lambda summary: summary.max_grad_norm),
        "max_grad_norm_step": summaries[0].max_grad_norm_step if len(summaries) == 1 else None,
        "tev_raw": middle(lambda summary: summary.tev_raw),
        "tev_effective": middle(lambda summary: summary.tev_effective),
        "tev_relative": middle(lambda summary: summary.tev_relative),
        "parameters": middle(lambda summary: summary.parameters),
        "tokens_per_second": middle(lambda summary: summary.tokens_per_second),
    }


def _outcome(summaries: Sequence[Summary]) -> str:
    """How an arm's runs ended: "finished", or "2 finished, 1 diverged at step 90"."""
    counts = Counter(summary.outcome for summary in summaries)
    if len(summaries) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
