"""The page of a comparison: tables, figures, where techniques did not help, what they cost, definitions."""

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from spikeless.experiments.analysis.comparison import Comparison
from spikeless.experiments.analysis.definitions import definitions
from spikeless.experiments.analysis.learning_rates import TOLERANCE
from spikeless.experiments.analysis.remarks import not_helping, warnings
from spikeless.experiments.analysis.stand_in import stand_in
from spikeless.experiments.analysis.statistics import RankCorrelation
from spikeless.experiments.analysis.summary import ArmRow, Extreme, LrRow, Spikes, arm_rows, baseline_of, lr_rows
from spikeless.experiments.presentation import wording
from spikeless.experiments.presentation.figures import lines, sections
from spikeless.report.page import write_page
from spikeless.words import EMPTY, count, counted, duration, number

__all__ = ["write_comparison_page"]

TEMPLATE = Path(__file__).with_name("compare.html.jinja")
NAMES = {
    "tev/mean": "raw TEV, μ",
    "tev/std": "raw TEV, σ",
    "tev/effective_mean": "effective TEV, μ",
    "tev/effective_std": "effective TEV, σ",
    "tev/relative": "relative TEV",
    "gradient_variance/exact/all": "gradient variance, all parameters",
    "gradient_variance/exact/token_embedding": "gradient variance, token embedding",
    "final_val_loss": "final validation loss",
    "perplexity": "perplexity, documents",
    "bits_per_byte": "bits/byte",
    "lambada_accuracy": "LAMBADA accuracy",
    "lambada_perplexity": "LAMBADA perplexity",
}

Cell = tuple[str, ...]  # the value, and what stands below it
Table = dict[str, Any]


def write_comparison_page(comparison: Comparison, path: Path) -> None:
    """Write a comparison as one self-contained HTML file, crash-safely.

    Args:
        comparison: also one whose runs have not ended, or failed.
        path: the file to write.

    Raises:
        UserError: the file cannot be written.
    """
    rows, rates = arm_rows(comparison), lr_rows(comparison)
    baseline = baseline_of(comparison)
    several = len(comparison.shapes) > 1
    shapes = {shape: wording.shape(*shape) for shape in comparison.shapes}

    def tables(columns: dict[str, Callable[[ArmRow], Cell | str]]) -> list[Table]:
        return [_table(list(group), columns, shapes[shape]) for shape, group in groupby(rows, lambda row: row.shape)]

    write_page(
        path,
        TEMPLATE,
        title=f"Comparison on {comparison.about.recipe}",
        sections=sections(comparison),
        about=comparison.about,
        one_line=wording.one_line(comparison),
        conditions=_conditions(comparison),
        lines={line.name: line for line in lines(comparison)},
        several=several,
        baseline=baseline,
        warnings=warnings(comparison),
        main=tables(_main(baseline)),
        rates=[
            _rate_table(list(group), shapes[shape], baseline) for shape, group in groupby(rates, lambda row: row.shape)
        ],
        not_helping=_by_place(not_helping(comparison)),
        cost=tables(_cost()),
        stability=tables(_stability()),
        tev=tables({NAMES[key]: lambda row, key=key: number(row.tev.get(key), 4) for key in _readings(rows)}),
        scores=tables(_scores(rows)) if any(row.scores for row in rows) else [],
        **_stand_ins(comparison),
        failed=[run for run in comparison.outcomes if run.failed],
        unfinished=[run for run in comparison.outcomes if not run.ended],
        definitions=definitions(comparison),
        tolerance=TOLERANCE,
        number=number,
    )


def _table(rows: Sequence[ArmRow], columns: dict[str, Callable[[ArmRow], Cell | str]], shape: str) -> Table:
    """Titles, and for each arm its name, an aside and its cells."""
    cells_of = [[_cell(read(row)) for read in columns.values()] for row in rows]
    return {
        "shape": shape,
        "titles": list(columns),
        "rows": [(row.arm, _ending(row), row.failed, texts) for row, texts in zip(rows, cells_of, strict=True)],
    }


def _cell(text: Cell | str) -> Cell:
    return (text,) if isinstance(text, str) else tuple(filter(None, text))


def _ending(row: ArmRow) -> str:
    counts = {"failed": row.failed, "not ended": row.unfinished}
    ends = [f"{number} {what}" for what, number in counts.items() if number]
    return f"{counted(row.runs, 'run')}{', ' if ends else ''}{', '.join(ends)}"


def _main(baseline: str) -> dict[str, Callable[[ArmRow], Cell | str]]:
    return {
        "best learning rate": lambda row: (number(row.best_lr), wording.edge(row)),
        "validation loss [nats/token]": lambda row: _with_seeds(row, wording.loss(row)),
        "perplexity": lambda row: wording.interval(row.perplexity),
        f"difference to {baseline}, each at its best rate": lambda row: wording.difference(row.own_lr),
        f"the same, both at {baseline}'s best rate": lambda row: wording.difference(row.same_lr),
        "largest stable rate": wording.stable,
        "headroom": wording.headroom,
        "sensitivity [nats/token]": lambda row: EMPTY if row.sensitivity is None else f"{row.sensitivity:.3f}",
    }


def _with_seeds(row: ArmRow, cell: Cell) -> Cell:
    seeds = counted(row.seeds, "seed") if row.seeds and not row.best_failed else ""
    return *cell, seeds


def _cost() -> dict[str, Callable[[ArmRow], Cell | str]]:
    def speed(row: ArmRow) -> Cell:
        if row.tokens_per_second is None or row.speeds is None:
            return EMPTY, ""
        low, high = row.speeds
        return f"{row.tokens_per_second:,.0f}", f"{low:,.0f} to {high:,.0f}" if row.runs > 1 else ""

    return {
        "parameters": lambda row: EMPTY if row.parameters is None else f"{row.parameters:,}",
        "FLOPs/token": lambda row: EMPTY if row.flops_per_token is None else count(round(row.flops_per_token)),
        "tokens/s, median and range": speed,
        "tokens/s, ratio": lambda row: wording.ratio(row.speed_ratio),
        "peak memory": lambda row: wording.memory(row.peak_memory),
        "memory, ratio": lambda row: wording.ratio(row.memory_ratio),
    }


def _stability() -> dict[str, Callable[[ArmRow], Cell | str]]:
    def spikes(key: str) -> Callable[[ArmRow], Cell]:
        def told(row: ArmRow) -> Cell:
            found: Spikes | None = row.spikes.get(key)
            if found is None:
                return EMPTY, ""
            every = f"all runs: {found.grid_count}, score {number(found.grid_score, 2)}"
            return (EMPTY if found.score is None else f"{found.count}, score {number(found.score, 2)}"), every

        return told

    def extreme(found: Extreme | None) -> Cell:
        return (EMPTY, "") if found is None else (number(found.median), f"all runs: {number(found.largest)}")

    def diverged(row: ArmRow) -> Cell:
        return str(row.diverged), "" if row.first_diverged is None else f"first at step {row.first_diverged:,}"

    return {
        "spikes of the loss": spikes("loss"),
        "spikes of the gradient norm": spikes("grad_norm"),
        "diverged [runs]": diverged,
        "largest gradient norm": lambda row: extreme(row.grad_norm),
        "largest update norm": lambda row: extreme(row.update_norm),
        "growth of the hidden variance": lambda row: number(row.hidden_growth),
    }


def _readings(rows: Sequence[ArmRow]) -> list[str]:
    return [key for key in NAMES if any(key in row.tev for row in rows)]


def _scores(rows: Sequence[ArmRow]) -> dict[str, Callable[[ArmRow], Cell | str]]:
    names = dict.fromkeys(name for row in rows for name in row.scores)

    def read(name: str) -> Callable[[ArmRow], Cell]:
        def told(row: ArmRow) -> Cell:
            if name not in row.scores:
                return EMPTY, ""
            value, aside = wording.mean(row.scores[name])
            return value, ", ".join(filter(None, (aside, f"n {row.scores[name].n}")))

        return told

    return {NAMES.get(name, name.replace("_", " ")): read(name) for name in names}


def _rate_table(rows: Sequence[LrRow], shape: str, baseline: str) -> Table:
    """An arm a row, a learning rate a column: median, range, and the difference to the baseline."""
    lrs = sorted({row.lr for row in rows})
    arms = list(dict.fromkeys(row.arm for row in rows))
    found = {(row.arm, row.lr): row for row in rows}
    best = {
        arm: min((row.median for row in rows if row.arm == arm and row.median is not None), default=None)
        for arm in arms
    }
    table = []
    for arm in arms:
        own = [found.get((arm, lr)) for lr in lrs]
        table.append((arm, [_rate_cell(row, best[arm], baseline) for row in own]))
    return {"shape": shape, "titles": [number(lr) for lr in lrs], "rows": table}


def _rate_cell(row: LrRow | None, best: float | None, baseline: str) -> tuple[str, list[str], bool]:
    """The median, what stands below it, and whether it is the arm's best."""
    if row is None or row.median is None:
        return EMPTY, [], False
    below = [wording.range_of(row.low, row.high)] if row.seeds > 1 else []
    below += [f"{row.failed} of {row.seeds} failed"] if row.failed else []
    if not math.isfinite(row.median):
        return "failed", below[-1:], False
    if row.test is not None:
        value, p = wording.difference(row.test)
        below.append(" ".join(filter(None, (f"{baseline} failed" if value == "-∞" else value, p))))
    return f"{row.median:.4f}", below, row.median == best


def _stand_ins(comparison: Comparison) -> dict[str, Any]:
    """Correlations within and across runs, as tables, and how much dearer the exact gradient variance is."""
    found, seconds = stand_in(comparison.outcomes), comparison.about.reading_seconds
    tev, exact = seconds.get("tev"), seconds.get("gradient_variance_exact")

    def across(each: RankCorrelation) -> str:
        return _interval(each.value, each.low, each.high)

    return {
        "dearer": f"{exact / tev:,.0f}" if tev and exact else "",
        "within": [
            [
                NAMES[each.reading],
                NAMES[each.against],
                _interval(each.median, each.low_quartile, each.high_quartile),
                EMPTY if math.isnan(each.positive) else f"{100 * each.positive:.0f} %",
                f"{each.n}" + (f" ({each.left_out} left out)" if each.left_out else ""),
            ]
            for each in found.within
        ],
        "across": [
            [
                NAMES[each.reading],
                NAMES[each.against],
                across(each.all),
                str(each.all.n),
                EMPTY if each.within_arms is None else f"{each.within_arms:+.2f}",
                str(each.arms),
            ]
            for each in found.across
        ],
    }


def _interval(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return EMPTY
    return f"{value:+.2f}" + ("" if math.isnan(low) else f" ({low:+.2f} to {high:+.2f})")


def _by_place(sentences: Sequence[str]) -> dict[str, list[str]]:
    """Sentences by what stands before their first colon."""
    found: dict[str, list[str]] = {}
    for each in sentences:
        where, _, what = each.partition(": ")
        found.setdefault(where, []).append(what)
    return found


def _conditions(comparison: Comparison) -> dict[str, str]:
    """What all runs share."""
    about = comparison.about
    told = {
        "recipe": about.recipe,
        "data": about.data,
        **{f"read of {source}": said for source, said in about.sources.items()},
        "tokenizer": f"{about.tokenizer}, {counted(about.vocab_size, 'token')}",
        "steps [optimizer steps]": f"{about.steps:,}",
        "tokens a step": f"{about.tokens_per_step:,}",
        "tokens a run": f"{about.steps * about.tokens_per_step:,}",
        "precision": about.precision,
        "settings of all arms": " ".join(about.settings) or "none besides the recipe's",
        "processes at a time": f"{about.jobs}, of {counted(about.threads, 'thread')}",
        "one reading of each diagnostic [s]": ", ".join(
            f"{name} {duration(seconds)}" for name, seconds in about.reading_seconds.items()
        ),
        "wall time [min]": f"{about.seconds / 60:,.1f}",
        **{key: str(value) for key, value in about.environment.items()},
    }
    return {name: value for name, value in told.items() if value}
