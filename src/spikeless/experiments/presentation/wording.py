"""An entry of a comparison's tables as text, for the terminal and for the page."""

import math

from spikeless.experiments.analysis.comparison import Comparison
from spikeless.experiments.analysis.costs import Ratio
from spikeless.experiments.analysis.statistics import Interval, PairedTest
from spikeless.experiments.analysis.summary import ArmRow
from spikeless.words import EMPTY, counted, number, size

__all__ = [
    "difference",
    "edge",
    "headroom",
    "interval",
    "loss",
    "mean",
    "memory",
    "one_line",
    "p_value",
    "range_of",
    "ratio",
    "shape",
    "signed",
    "stable",
]

LEAST = 0.001  # a p-value below this is written with a power of ten
MANY = 100.0  # from here on one digit behind the point is enough
EDGES = {"low": "grid's bottom", "high": "grid's top", "only": "only one", "": ""}


def one_line(comparison: Comparison) -> str:
    """What was compared and how it ended, without a verdict."""
    about, runs = comparison.about, comparison.outcomes
    seeds = len({run.seed for run in runs})
    axes = [counted(len(comparison.arms), "arm"), counted(len(comparison.lrs), "learning rate")]
    axes += [counted(len(comparison.shapes), "shape")] if len(comparison.shapes) > 1 else []
    ends = [f"{sum(run.failed for run in runs) or 'none'} failed"]
    if unfinished := sum(not run.ended for run in runs):
        ends.append(f"{unfinished} not ended")
    grid = " × ".join([*axes, counted(seeds, "seed")])
    return f"{grid} on {about.recipe}: {counted(len(runs), 'run')} of {counted(about.steps, 'step')}, {', '.join(ends)}"


def shape(depth: int, width: int) -> str:
    """A depth and width in words."""
    return f"{counted(depth, 'layer')} × {width}"


def edge(row: ArmRow) -> str:
    """Where the best learning rate lies, if that needs saying."""
    return EDGES[row.edge]


def loss(row: ArmRow, digits: int = 4) -> tuple[str, str]:
    """The validation loss at the best learning rate, and what it rests on."""
    if row.loss is None:
        return ("failed", "") if row.failed and not row.unfinished else (EMPTY, "")
    if row.best_failed and row.median_loss is not None:
        return f"{row.median_loss:.{digits}f}", f"median, {row.best_failed} of {row.seeds} failed"
    return mean(row.loss, digits)


def mean(value: Interval, digits: int = 4) -> tuple[str, str]:
    """A mean, and half of its interval."""
    half = (value.high - value.low) / 2
    digits = digits if abs(value.middle) < MANY else 1
    return f"{value.middle:,.{digits}f}", "" if math.isnan(half) else f"±{half:,.{digits}f}"


def interval(value: Interval | None, digits: int = 1) -> tuple[str, str]:
    """A number, and the ends of its interval."""
    if value is None or not math.isfinite(value.middle):
        return EMPTY, ""
    ends = "" if math.isnan(value.low) else f"{value.low:,.{digits}f} to {value.high:,.{digits}f}"
    return f"{value.middle:,.{digits}f}", ends


def difference(test: PairedTest | None, digits: int = 4) -> tuple[str, str]:
    """The median difference, and how likely chance is to give one as large."""
    if test is None:
        return EMPTY, ""
    return signed(test.median, digits), "" if test.n < 2 else f"p {p_value(test.p_value)}"


def p_value(value: float) -> str:
    """A p-value to three digits behind the point."""
    return f"{value:.3f}".rstrip("0").rstrip(".") if value >= LEAST else number(value, 2)


def signed(value: float | None, digits: int = 4) -> str:
    """A difference, with its sign; infinite where runs failed."""
    if value is None or math.isnan(value):
        return EMPTY
    return f"{value:+.{digits}f}" if math.isfinite(value) else "+∞" if value > 0 else "-∞"


def stable(row: ArmRow) -> str:
    """The largest stable learning rate, as a lower bound where the grid ends."""
    if row.largest_stable_lr is None:
        return EMPTY if row.loss is None and not row.failed else "none"
    return f"≥{number(row.largest_stable_lr)}" if row.stable_censored else number(row.largest_stable_lr)


def headroom(row: ArmRow) -> str:
    """How much larger a learning rate than the baseline's it bears."""
    if row.headroom is None:
        return EMPTY
    sign = {"": "", "at least": "≥", "at most": "≤"}.get(row.headroom_bound)
    return "unknown" if sign is None else f"{sign}{number(row.headroom)}×"


def ratio(value: Ratio | None) -> tuple[str, str]:
    """Ours over the baseline's, and its spread; from few runs, how few."""
    if value is None:
        return EMPTY, ""
    if not value.known:
        return counted(value.n, "run"), ""
    return f"{value.median:.2f}×", f"{value.low:.2f} to {value.high:.2f}, {value.n} pairs"


def memory(value: float | None) -> str:
    """[bytes] in words."""
    if value is None:
        return EMPTY
    return size(value)


def range_of(low: float | None, high: float | None, digits: int = 4) -> str:
    """From the smallest to the largest value over seeds."""
    if low is None or high is None:
        return EMPTY
    ends = (f"{each:.{digits}f}" if math.isfinite(each) else "∞" for each in (low, high))
    return " to ".join(dict.fromkeys(ends))
