"""The summary table: one row an arm, medians over seeds, nothing that failed left out; and the list of runs."""

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.text import Text

from spikeless.report.arms import Arm, gather
from spikeless.report.fitting import FittingTable
from spikeless.report.record import RunRecord, Summary
from spikeless.words import EMPTY, count, counted, fixed

__all__ = ["caption", "cell", "columns", "comparability", "run_rows", "runs_table", "summary_rows", "summary_table"]

COLUMNS = {
    "arm": "arm",
    "folder": "folder",
    "val_loss": "validation loss [nats/token]",
    "val_bits_per_byte": "bits per byte",
    "perplexity": "perplexity",
    "max_grad_norm": "largest grad norm",
    "tev_raw": "TEV raw",
    "tev_effective": "TEV effective",
    "parameters": "parameters",
    "tokens_per_second": "tokens/s",
}
TERMINAL_TITLES = {  # narrow enough for 80 columns
    "arm": "arm",
    "folder": "folder",
    "outcome": "state",
    "val_loss": "validation\nloss [nats\n/token]",
    "val_bits_per_byte": "bits\nper\nbyte",
    "perplexity": "perplex-\nity",
    "max_grad_norm": "largest\ngrad norm",
    "tev_raw": "TEV\nraw",
    "tev_effective": "TEV\neffec-\ntive",
    "parameters": "para-\nmeters",
    "tokens_per_second": "tokens\n/s",
}
WORDS = ("arm", "folder", "outcome")
LEAST = ("parameters", "tev_raw", "perplexity", "tev_effective", "tokens_per_second", "max_grad_norm")
DIGITS = {"perplexity": 1, "max_grad_norm": 2, "parameters": 0, "tokens_per_second": 0}
FOLDERS_SHOWN = 3


def columns(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Titles of the summary's columns: no folder of a single run, no bits per byte where none are known."""
    unknown = {"folder"} if sum(row["runs"] for row in rows) < 2 else set()
    unknown |= {"val_bits_per_byte"} if all(row["val_bits_per_byte"] is None for row in rows) else set()
    return {key: title for key, title in COLUMNS.items() if key not in unknown}


def summary_rows(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """One row an arm, of numbers: the median over its runs; None where nothing was logged.

    A failed run's validation loss and perplexity count as infinite, whatever they were before it failed.
    """
    return [_row(arm) for arm in gather(records)]


def run_rows(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """The same, one row a run."""
    names = {record.folder: arm.run_name(record) for arm in gather(records) for record in arm.records}
    return [_row(Arm(name=names[record.folder], index=0, records=(record,))) for record in records]


def summary_table(records: Sequence[RunRecord]) -> FittingTable:
    """The summary for the terminal."""
    rows = summary_rows(records)
    shown = {key: TERMINAL_TITLES[key] for key in columns(rows)}
    cells: list[dict[str, str | Text]] = [{key: _narrow(row, key) for key in shown} for row in rows]
    for row, texts in zip(rows, cells, strict=True):
        if row["outcome"] != "finished":
            texts["arm"] = Text.assemble(row["arm"], "\n", (row["outcome"], "red" if row["failed"] else "yellow"))
    notes = [caption(records), *comparability(records)]
    return FittingTable(shown, cells, words=WORDS, least=LEAST, caption="\n".join(notes))


def runs_table(records: Sequence[RunRecord], below: Path) -> FittingTable:
    """Every run by itself: where it lies, what tells it apart, how it stands; folders are relative to `below`."""
    rows = run_rows(records)
    cells = []
    for row, record in zip(rows, records, strict=True):
        style = "red" if row["failed"] else "" if row["outcome"] == "finished" else "yellow"
        texts = {key: _narrow(row, key) for key in COLUMNS}
        cells.append(texts | {"folder": os.path.relpath(record.folder, below), "outcome": Text(row["outcome"], style)})
    keys = [key for key in columns(rows) if key not in ("arm", "folder", "tev_raw", "tev_effective")]
    shown = {key: TERMINAL_TITLES[key] for key in ("folder", "arm", "outcome", *keys)} | {"arm": "run"}
    return FittingTable(shown, cells, words=WORDS, least=LEAST, caption="\n".join(comparability(records)))


def caption(records: Sequence[RunRecord]) -> str:
    """What the numbers rest on: how many seeds."""
    counts = sorted({arm.seeds for arm in gather(records)})
    if not counts or counts == [1]:
        return "one seed: an illustration"
    span = f"{counts[0]} to " if counts[0] < counts[-1] else ""
    return f"median over {span}{counted(counts[-1], 'seed')} an arm"


def comparability(records: Sequence[RunRecord]) -> list[str]:
    """What keeps the numbers of the runs from being compared, a sentence each."""
    data = [record.config.get("data") or {} for record in records]
    texts = {(each.get("spec"), each.get("validation_fraction")) for each in data}
    tokenizers = {each.get("tokenizer") for each in data}
    hashes = {record.data_hash for record in records} if len(tokenizers) == 1 else set()
    if len(texts) > 1 or len(hashes - {None}) > 1:
        return ["the runs read different data: neither losses nor bits per byte compare"]
    if len(tokenizers) > 1:
        return ["the runs have different tokenizers: losses and perplexities do not compare, bits per byte do"]
    return []


def cell(row: dict[str, Any], key: str) -> str:
    """A table entry as text."""
    value = row[key]
    if value is None:
        return EMPTY
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return "failed" if key == "val_loss" else "∞" if value == math.inf else str(value)
    return fixed(value, DIGITS.get(key, 4))


def _narrow(row: dict[str, Any], key: str) -> str:
    return count(row[key]) if key == "parameters" else cell(row, key)


def _row(arm: Arm) -> dict[str, Any]:
    summaries = [record.summary() for record in arm.records]

    def middle(value: Callable[[Summary], float | None]) -> float | None:
        values = [number for number in map(value, summaries) if number is not None]
        return median(math.inf if math.isnan(number) else number for number in values) if values else None

    return {
        "arm": arm.name,
        "folder": _folders([str(record.folder) for record in arm.records]),
        "runs": len(summaries),
        "seeds": arm.seeds,
        "failed": sum(summary.failed for summary in summaries),
        "outcome": _outcome(summaries),
        "val_loss": middle(lambda summary: math.inf if summary.failed else summary.final_val_loss),
        "val_bits_per_byte": middle(lambda summary: math.inf if summary.failed else summary.val_bits_per_byte),
        "perplexity": middle(lambda summary: math.inf if summary.failed else summary.perplexity),
        "max_grad_norm": middle(lambda summary: summary.max_grad_norm),
        "max_grad_norm_step": summaries[0].max_grad_norm_step if len(summaries) == 1 else None,
        "tev_raw": middle(lambda summary: summary.tev_raw),
        "tev_effective": middle(lambda summary: summary.tev_effective),
        "tev_relative": middle(lambda summary: summary.tev_relative),
        "parameters": middle(lambda summary: summary.parameters),
        "tokens_per_second": middle(lambda summary: summary.tokens_per_second),
    }


def _folders(folders: Sequence[str]) -> str:
    more = len(folders) - FOLDERS_SHOWN
    return "\n".join([*folders[:FOLDERS_SHOWN], *([f"and {more} more"] if more > 0 else [])])


def _outcome(summaries: Sequence[Summary]) -> str:
    """How an arm's runs ended: "finished", or "2 finished, 1 diverged at step 90"."""
    counts = Counter(summary.outcome for summary in summaries)
    if len(summaries) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
