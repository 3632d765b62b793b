"""Numbers and counted nouns as people say them; every message and every table takes them from here."""

import math
import re

__all__ = ["EMPTY", "count", "counted", "duration", "fixed", "number", "plural", "scaled", "size"]

EMPTY = "–"
"""What a table shows where there is no number."""

_PLURALS = {"corpus": "corpora", "matrix": "matrices", "index": "indices", "axis": "axes", "epoch": "epochs"}
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
_DURATIONS = (("years", 86_400.0 * 365), ("days", 86_400.0), ("h", 3600.0), ("min", 60.0))  # from two of them on


def plural(noun: str) -> str:
    """The plural of an English noun, or of a phrase that ends with it: "learning rates", "matrices", "processes"."""
    before, space, last = noun.rpartition(" ")
    if last in _PLURALS:
        many = _PLURALS[last]
    elif re.search(r"(s|x|z|ch|sh)$", last):
        many = f"{last}es"
    else:
        many = f"{last[:-1]}ies" if re.search(r"[^aeiou]y$", last) else f"{last}s"
    return f"{before}{space}{many}"


def counted(number: int, noun: str, many: str | None = None) -> str:
    """A number and its noun: "1 run", "2,048 tokens", or `many` behind the number: "2 parameters get"."""
    return f"{number:,} {noun if number == 1 else many or plural(noun)}"


def number(value: float | None, digits: int = 3) -> str:
    """A number in few characters: 0.0123, 1.2e-7, ∞, NaN."""
    if value is None:
        return EMPTY
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if float(f"{abs(value):.{digits}g}") >= 10**digits and abs(value) < 99_999.5:
        return f"{value:.0f}"
    return re.sub(r"e([+-])0*(\d)", lambda match: f"e{match[1].strip('+')}{match[2]}", f"{value:.{digits}g}")


def fixed(value: float, digits: int) -> str:
    """A number with so many digits behind the point, from a million on with a power of ten where there are any."""
    return number(value) if digits and abs(value) >= 1e6 else f"{value:,.{digits}f}"


def count(value: float | None) -> str:
    """A count to three digits: 124M."""
    if value is None:
        return EMPTY
    digits, prefix = _scaled(value)
    return f"{digits}{prefix}".replace("G", "B")


def size(number: float) -> str:
    """[bytes] to three digits: 13.1 MB."""
    return scaled(number, "B")


def scaled(value: float, unit: str) -> str:
    """A quantity from 1 on to three digits, with the SI prefix of its unit: 14.5 GFLOP."""
    digits, prefix = _scaled(value)
    return f"{digits} {prefix}{unit}"


def duration(seconds: float) -> str:
    """[s] in the unit that fits: 250 ms, 1.82 s, 90.0 s, 2.2 min, 3.5 days."""
    if not math.isfinite(seconds):
        return "unknown"
    for unit, length in _DURATIONS:
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    if seconds >= 9.995:
        return f"{seconds:.1f} s"
    for unit, length in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if (rounded := float(f"{seconds / length:.3g}")) >= 1:
            return f"{rounded:g} {unit}"
    return "0 s"


def _scaled(value: float) -> tuple[str, str]:
    for power, prefix in enumerate(_PREFIXES):
        rounded = float(f"{value / 1000**power:.3g}")
        if rounded < 1000:
            return f"{rounded:g}", prefix
    return number(value), ""
