"""The tables of what benchmarks measured, made from the JSON that they write; `tables.py` puts them into pages."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from spikeless.files import read_json

__all__ = ["TABLES"]

Row = Sequence[str]
OURS = "spikeless"


def timings(file: Path) -> list[Row]:
    """The demo's command before and after, in turn."""
    read = read_json(file, "pairs", "first_commit", "now_commit")
    rows: list[Row] = [("whole command [s]", f"first version ({read['first_commit']})", "now", "times as fast")]
    for pair in read["pairs"]:
        times = {"": pair["now"]} | ({", training alone": pair["now_training"]} if "now_training" in pair else {})
        for what, now in times.items():
            ratio = f"{sum(pair['first']) / sum(now):.2f}"
            rows.append((pair["what"] + what, *(", ".join(map(str, each)) for each in (pair["first"], now)), ratio))
    return rows


def shares(file: Path, of: str) -> list[Row]:
    """Shares of a whole, the largest first."""
    found = sorted(read_json(file, of)[of].items(), key=lambda each: -each[1])
    return [("part", "share"), *((part, f"{share:.1%}") for part, share in found)]


def overhead(file: Path) -> list[Row]:
    """What a grid costs besides training, measured, and computed for a large one."""
    read = read_json(file, "seconds", "shares", "large_shares")
    rows: list[Row] = [
        ("what", "seconds", f"share of {read['runs']} runs", f"share of {read['large_runs']} runs, computed")
    ]
    for what, seconds in read["seconds"].items():
        rows.append((what, f"{seconds:.1f}", f"{read['shares'][what]:.1%}", f"{read['large_shares'][what]:.1%}"))
    whole = (f"{sum(read['seconds'].values()):.1f}", f"{read['overhead']:.1%}", f"{read['large_overhead']:.1%}")
    return [*rows, ("all of it", *whole)]


def circumstances(file: Path) -> list[Row]:
    """Where and when it was measured."""
    read = read_json(file, "date", "machine")
    told = ((name.replace("_", " "), value) for name, value in read.items() if isinstance(value, str | int | float))
    return [
        ("measured with", ""),
        *((name, f"{value:.3g}" if type(value) is float else str(value)) for name, value in told),
    ]


def starts(file: Path) -> list[Row]:
    """From the command to the first step, with and without our own cache."""
    read = read_json(file, "starts", "aims")
    rows: list[Row] = [("our cache", "wall [s]: median [range]", "aim", "CPU [s]: median [range]", "starts")]
    for kind, each in read["starts"].items():
        wall, cpu = (_spread([start[name] for start in each], ".1f") for name in ("wall_seconds", "cpu_seconds"))
        rows.append((kind, wall, f"≤ {read['aims'][kind]:g}", cpu, str(len(each))))
    return rows


def speeds(file: Path) -> list[Row]:
    """Tokens a second of each side, and how many times as fast we are, round by round."""
    results = read_json(file, "results")["results"]
    peers = _peers(results)
    heads = (f"against {peer}: median [range]" for peer in peers)
    rows: list[Row] = [(*_CASE, *(f"{side} [tokens/s]" for side in (OURS, *peers)), *heads)]
    for row in results:
        seconds, tokens = row["seconds"], row["batch"] * row["length"]
        rates = (f"{tokens / median(seconds[side]):,.0f}" for side in (OURS, *peers))
        rounds = ([b / a for a, b in zip(seconds[OURS], seconds[peer], strict=True)] for peer in peers)
        rows.append((*_case(row), *rates, *(_spread(each, ".2f") for each in rounds)))
    return rows


def peaks(file: Path) -> list[Row]:
    """Peak memory of each side, and which share of a peer's we need."""
    results = read_json(file, "results")["results"]
    peers = _peers(results)
    rows: list[Row] = [(*_CASE, *(f"{side} [GB]" for side in (OURS, *peers)), *(f"share of {p}'s" for p in peers))]
    for row in results:
        held = row["peak_bytes"]
        shares = (f"{held[OURS] / held[peer]:.2f}" for peer in peers)
        rows.append((*_case(row), *(f"{held[side] / 1e9:.2f}" for side in (OURS, *peers)), *shares))
    return rows


def splits(file: Path) -> list[Row]:
    """Where the time of one of our steps goes."""
    results = read_json(file, "results")["results"]
    rows: list[Row] = [(*_CASE, *results[0]["split"])]
    return [*rows, *((*_case(row), *(f"{share:.0%}" for share in row["split"].values())) for row in results)]


TABLES = (timings, shares, overhead, circumstances, starts, speeds, peaks, splits)
_CASE = ("layers × width", "vocabulary", "batch", "precision")


def _case(row: dict[str, Any]) -> Row:
    shape, batch = (f"{row['layers']} × {row['width']}", f"{row['batch']} × {row['length']}")
    return shape, f"{row['vocabulary']:,}", batch, row["precision"]


def _peers(results: list[dict[str, Any]]) -> list[str]:
    return [side for side in results[0]["seconds"] if side != OURS]


def _spread(values: Sequence[float], form: str) -> str:
    """Median and range."""
    return f"{median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"
