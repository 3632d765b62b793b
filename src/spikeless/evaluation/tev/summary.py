"""What is said of each checkpoint, for the terminal and for the page."""

from collections.abc import Sequence

from spikeless.evaluation.tev.measure import EmbeddingVariability
from spikeless.words import EMPTY, count, number

__all__ = ["COLUMNS", "name_of", "remarks", "rows"]

COLUMNS = {
    "checkpoint": "checkpoint",
    "step": "step",
    "parameters": "parameters",
    "table": "table, V × D",
    "dtype": "dtype",
    "head": "head",
    "mean": "TEV raw, μ",
    "std": "TEV raw, σ",
    "entry": "on the way in",
    "effective_mean": "TEV effective, μ",
    "effective_std": "TEV effective, σ",
}
HEADS = {True: "tied", False: "own", None: EMPTY}


def rows(readings: Sequence[EmbeddingVariability]) -> list[dict[str, str]]:
    """A cell for each of `COLUMNS`, checkpoint by checkpoint as given; without `step` where none has one."""
    steps = any(each.step is not None for each in readings)
    table = []
    for each in readings:
        cells = {
            "checkpoint": each.label,
            "step": EMPTY if each.step is None else f"{each.step:,}",
            "parameters": count(each.parameters),
            "table": f"{each.rows}×{each.width}",
            "dtype": each.dtype,
            "head": HEADS[each.tied],
            "mean": number(each.mean, 4),
            "std": number(each.std, 3),
            "entry": each.entry,
            "effective_mean": number(each.effective_mean, 4),
            "effective_std": number(each.effective_std, 3),
        }
        if not steps:
            del cells["step"]
        table.append(cells)
    return table


def remarks(readings: Sequence[EmbeddingVariability]) -> list[tuple[str, str]]:
    """What the table has no room for: which checkpoint, and what of it."""
    found = []
    for each in readings:
        said = []
        if each.padded_rows:
            said.append(
                f"{each.padded_rows:,} of {each.rows:,} rows lie beyond the {each.vocabulary} known ids; "
                f"without them raw μ {number(each.unpadded_mean, 4)}, σ {number(each.unpadded_std, 3)}"
            )
        if each.constant_rows:
            said.append(f"rows of one value: {each.constant_rows:,}, of them zero: {each.zero_rows:,}")
        if each.non_finite_rows:
            said.append(f"rows that are not finite: {each.non_finite_rows:,}; the numbers are those of the others")
        found += [(name_of(each), one) for one in (*said, *each.notes)]
    return found


def name_of(reading: EmbeddingVariability) -> str:
    """The checkpoint's label, and its step if it has one."""
    return reading.label if reading.step is None else f"{reading.label}, step {reading.step:,}"
