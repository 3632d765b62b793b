"""The tables of docs/results and of the README, made from the committed JSON alone.

    python studies/tables.py            # writes every table anew; a test fails while one is stale

A table stands in a page between two comments; the first names a function of this file and the JSON that it reads,
relative to the page: `<!-- table: arms comparison.json -->` … `<!-- /table -->`. What follows the file is handed to the
function: `<!-- table: depths comparison.json lr=0.01 -->`.
"""

import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import benchmark_tables

from spikeless.experiments.analysis.comparison import Comparison, read_comparison
from spikeless.experiments.analysis.learning_rates import study_arms
from spikeless.experiments.analysis.outcome import Outcome
from spikeless.experiments.analysis.stand_in import FINAL_LOSS, stand_in
from spikeless.experiments.analysis.statistics import Interval, PairedTest, mean_interval, paired_test
from spikeless.experiments.analysis.summary import arm_rows, lr_rows
from spikeless.files import read_json

__all__ = ["PAGES", "with_tables"]

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs" / "results").glob("*/README.md")))
LARGE = 1e5
"""From here on three decimals say nothing."""
MARK = re.compile(r"(<!-- table: (?P<call>[^>]*?) -->\n).*?(<!-- /table -->)", re.DOTALL)

Row = Sequence[str]


def with_tables(page: Path, text: str) -> str:
    """The text of a page with its tables as they should be."""

    def table(match: re.Match[str]) -> str:
        name, file, *given = shlex.split(match["call"])
        options = dict(each.split("=", 1) for each in given)
        return f"{match[1]}{_markdown(TABLES[name](page.parent / file, **options))}\n{match[3]}"

    return MARK.sub(table, text)


def arms(file: Path) -> list[Row]:
    """One row an arm: its best, its largest stable learning rate, what it cost."""
    rows: list[Row] = [
        (
            "arm",
            "best lr",
            "validation loss there [nats/token]",
            "against the baseline's best",
            "largest stable lr",
            "headroom",
            "lr sensitivity [nats/token]",
            "loss spikes",
            "failed",
        )
    ]
    for row in arm_rows(read_comparison(file)):
        spikes = row.spikes.get("loss")
        rows.append(
            (
                _arm(row.arm, row.depth, row.width, file),
                _number(row.best_lr),
                _interval(row.loss),
                _test(row.own_lr),
                ("≥ " if row.stable_censored else "") + _number(row.largest_stable_lr),
                _headroom(row.headroom, row.headroom_bound),
                _number(row.sensitivity),
                "–" if spikes is None else f"{spikes.grid_count}",
                f"{row.failed} of {row.runs}",
            )
        )
    return rows


def rates(file: Path) -> list[Row]:
    """Median final validation loss, an arm a row and a learning rate a column; the difference to the baseline there."""
    comparison = read_comparison(file)
    rows: list[Row] = [("arm", *(f"lr {lr:g}" for lr in comparison.lrs))]
    found = {(row.shape, row.arm, row.lr): row for row in lr_rows(comparison)}
    for shape in comparison.shapes:
        for arm in comparison.arms:
            cells = []
            for lr in comparison.lrs:
                row = found.get((shape, arm, lr))
                if row is None or row.median is None:
                    cells.append("–")
                    continue
                p = f" (p {_number(row.test.p_value)})" if row.test else ""
                cells.append(("failed" if math.isinf(row.median) else f"{row.median:.3f}") + p)
            rows.append((_arm(arm, *shape, file), *cells))
    return rows


def depths(file: Path, lr: str) -> list[Row]:
    """By depth and arm at one learning rate, or each at its best one: loss, difference to the baseline, TEV."""
    comparison, select = _selector(file, lr)
    rows: list[Row] = [
        (
            "layers",
            "arm",
            "learning rate",
            "seeds",
            "validation loss [nats/token]",
            "perplexity",
            "against the baseline",
            "TEV μ",
            "TEV σ",
            "effective TEV μ",
            "parameters",
        )
    ]
    for depth, width in comparison.shapes:
        base = _losses(select("baseline", depth, width))
        for arm in comparison.arms:
            runs = select(arm, depth, width)
            losses = _losses(runs)
            if not losses:
                continue
            mean = mean_interval(list(losses.values()))
            rows.append(
                (
                    str(depth),
                    f"`{arm}`",
                    _number(runs[0].lr),
                    str(len(losses)),
                    _interval(mean),
                    f"{math.exp(mean.middle):,.0f}" if math.isfinite(mean.middle) else "∞",
                    "–" if arm == "baseline" else _test(paired_test(losses, base)),
                    *(_number(_last(runs, key)) for key in ("tev/mean", "tev/std", "tev/effective_mean")),
                    f"{runs[0].parameters:,}" if runs[0].parameters else "–",
                )
            )
    return rows


def versus(file: Path, lr: str, ours: str, theirs: str) -> list[Row]:
    """One arm against another, by depth, at one learning rate or each at its best one."""
    comparison, select = _selector(file, lr)
    rows: list[Row] = [("layers", f"`{ours}` minus `{theirs}` [nats/token]")]
    for depth, width in comparison.shapes:
        a, b = (_losses(select(arm, depth, width)) for arm in (ours, theirs))
        if a and b:
            rows.append((str(depth), _test(paired_test(a, b))))
    return rows


def proxy(file: Path) -> list[Row]:
    """How TEV goes with the exact gradient variance and with the final loss."""
    found = stand_in(read_comparison(file).outcomes)
    within = {(each.reading, each.against): each for each in found.within}
    rows: list[Row] = [("reading", "against", "within runs: median [quartiles]", "across runs [95 %]", "within arms")]
    for each in found.across:
        run = within.get((each.reading, each.against))
        against = "final loss" if each.against == FINAL_LOSS else f"`{each.against}`"
        rows.append(
            (
                f"`{each.reading}`",
                against,
                f"{run.median:+.2f} [{run.low_quartile:+.2f}, {run.high_quartile:+.2f}], {run.n} runs" if run else "–",
                f"{each.all.value:+.2f} [{each.all.low:+.2f}, {each.all.high:+.2f}], {each.all.n} runs",
                "–" if each.within_arms is None else f"{each.within_arms:+.2f}, {each.arms} arms",
            )
        )
    return rows


def costs(file: Path) -> list[Row]:
    """Parameters, work, speed and memory of each arm, all learning rates together."""
    rows: list[Row] = [("arm", "parameters", "FLOPs per token", "tokens/s: median [range]", "peak memory [MiB]")]
    comparison = read_comparison(file)
    for arm in comparison.arms:
        runs = comparison.select(arm=arm)
        speeds = [run.tokens_per_second for run in runs if run.tokens_per_second]
        memory = [run.peak_memory / 2**20 for run in runs if run.peak_memory]
        size, work = runs[0].parameters, runs[0].flops_per_token
        rows.append(
            (
                f"`{arm}`",
                f"{size:,}" if size else "–",
                f"{work:.4g}" if work else "–",
                f"{median(speeds):,.0f} [{min(speeds):,.0f}, {max(speeds):,.0f}]" if speeds else "–",
                f"{median(memory):.0f}" if memory else "–",
            )
        )
    return rows


def scores(file: Path) -> list[Row]:
    """What `spikeless eval` says of the final checkpoints at each arm's best learning rate, mean over seeds."""
    rows: list[Row] = [("arm", "runs", "bits per byte", "perplexity", "LAMBADA perplexity", "LAMBADA accuracy")]
    for row in arm_rows(read_comparison(file)):
        if row.scores:
            names = ("bits_per_byte", "perplexity", "lambada_perplexity", "lambada_accuracy")
            cells = (_interval(row.scores[name]) if name in row.scores else "–" for name in names)
            rows.append((_arm(row.arm, row.depth, row.width, file), str(row.seeds), *cells))
    return rows


def references(file: Path) -> list[Row]:
    """What tables of counts reach, and the lowest loss of the baseline and of any arm, of each experiment of a page."""
    found = read_json(file, "losses")["losses"]
    names = ("uniform", "unigram", "bigram")
    rows: list[Row] = [("loss [nats/token]", "tokens a run", *names, "best baseline", "best of all")]
    for each in found:
        arms = _best_losses(file.parent / each["file"])
        base = [loss for arm, loss in arms if arm.partition(",")[0] == "baseline"]
        name, least = min(arms, key=lambda pair: pair[1])
        rows.append(
            (
                f"[{each['file']}]({each['file']})",
                f"{each['tokens_seen']:,}",
                *(f"{each[name]:.3f}" for name in names),
                f"{min(base):.3f}" if base else "–",
                f"{least:.3f} (`{name}`)",
            )
        )
    return rows


def prediction(file: Path) -> list[Row]:
    """Rank correlation of the audit's score with the largest stable learning rate, by half."""
    halves = read_json(file, "largest_stable_lr")["largest_stable_lr"]
    rows: list[Row] = [("half", "configurations", "Spearman ρ", "Kendall τ-b")]
    for half, quantities in halves.items():
        found = quantities["score"]
        cells = (
            f"{found[kind]['value']:+.2f} [{found[kind]['low']:+.2f}, {found[kind]['high']:+.2f}]"
            for kind in ("spearman", "kendall")
        )
        rows.append((half, str(found["spearman"]["n"]), *cells))
    return rows


def selected(file: Path) -> list[Row]:
    """What predicts the tuning half best, and how it does on the untouched one."""
    rows: list[Row] = [("chosen on the tuning half", "ρ there, left out", "ρ untouched", "τ-b untouched")]
    for each in read_json(file, "selected")["selected"].values():
        cells = (
            f"{each['untouched'][kind]['value']:+.2f} "
            f"[{each['untouched'][kind]['low']:+.2f}, {each['untouched'][kind]['high']:+.2f}]"
            for kind in ("spearman", "kendall")
        )
        names = " and ".join(f"`{name}`" for name in each["quantities"])
        rows.append((names, f"{each['tuning_left_out']:+.2f}", *cells))
    return rows


def targets(file: Path) -> list[Row]:
    """Rank correlation of the score with what else was measured."""
    found = read_json(file, "best_loss")
    rows: list[Row] = [("Spearman ρ of the score with", "tuning", "untouched", "all")]
    for key, name in (("best_loss", "best loss"), ("best_lr", "best rate"), ("sensitivity", "lr sensitivity")):
        values = (found[key][half]["spearman"] for half in ("tuning", "untouched", "all"))
        rows.append((name, *(f"{each['value']:+.2f} [{each['low']:+.2f}, {each['high']:+.2f}]" for each in values)))
    return rows


def sweeps(file: Path) -> list[Row]:
    """Rank correlation of what a range test says with what was measured."""
    found = read_json(file, "sweeps")["sweeps"]
    names = {
        "range_best_lr": "rate of the least averaged loss",
        "range_rise": "rate that raises the averaged loss by 0.2 nats",
    }
    rows: list[Row] = [("range test", "Spearman ρ with", "tuning", "untouched", "all")]
    for reading, name in names.items():
        for target, against in (("best_lr", "best rate"), ("largest_stable_lr", "largest stable rate")):
            values = (found[reading][target][half]["spearman"] for half in ("tuning", "untouched", "all"))
            cells = (f"{each['value']:+.2f} [{each['low']:+.2f}, {each['high']:+.2f}]" for each in values)
            rows.append((name, against, *cells))
    ratios = read_json(file, "rise_over_best_lr")["rise_over_best_lr"]
    medians = (f"{ratios[half]:.1f}" for half in ("tuning", "untouched", "all"))
    return [*rows, (f"{names['range_rise']}, over the best rate", "(median ratio)", *medians)]


def predicted(file: Path) -> list[Row]:
    """Every configuration by its score, and what was measured of it."""
    rows: list[Row] = [("configuration", "half", "score", "largest stable lr", "best lr", "best loss [nats/token]")]
    for each in sorted(read_json(file, "configurations")["configurations"], key=lambda each: each["score"]):
        stable = ("≥ " if each["at_grid_top"] else "") + _number(each["largest_stable_lr"])
        cells = (f"{each['score']:.2f}", stable, _number(each["best_lr"]), f"{each['best_loss']:.3f}")
        rows.append((f"`{each['name']}`", each["half"], *cells))
    return rows


def quantities(file: Path) -> list[Row]:
    """The audit's other numbers, by how well they order the tuning half."""
    halves = read_json(file, "largest_stable_lr")["largest_stable_lr"]
    rows: list[Row] = [("quantity", *(f"ρ, {half}" for half in halves))]
    known = [key for key, found in halves["tuning"].items() if found and _is_finite(found["spearman"]["value"])]
    for key in sorted(known, key=lambda key: -abs(halves["tuning"][key]["spearman"]["value"])):
        values = (halves[half][key]["spearman"]["value"] if halves[half][key] else None for half in halves)
        rows.append((f"`{key}`", *(f"{each:+.2f}" if _is_finite(each) else "–" for each in values)))
    return rows


def headline(file: Path) -> list[Row]:
    """The README's: best loss, largest stable learning rate, headroom; and what tables of counts reach."""
    rows: list[Row] = [("arm", "best loss [nats/token]", "against the baseline's best", "stable up to lr", "headroom")]
    for row in arm_rows(read_comparison(file)):
        rows.append(
            (
                f"`{row.arm}`",
                _interval(row.loss),
                _test(row.own_lr),
                ("≥ " if row.stable_censored else "") + _number(row.largest_stable_lr),
                _headroom(row.headroom, row.headroom_bound),
            )
        )
    losses = read_json(file.with_name("reference.json"), "losses")["losses"]
    [found] = (each for each in losses if each["file"] == file.name)
    best = min(row.loss.middle for row in arm_rows(read_comparison(file)) if row.arm == "baseline" and row.loss)
    return rows + [
        (f"*{name} counts*", f"{found[name]:.3f}", f"{found[name] - best:+.3f}", "–", "–")
        for name in ("unigram", "bigram")
    ]


TABLES: Mapping[str, Callable[..., list[Row]]] = {
    each.__name__: each
    for each in (
        arms,
        rates,
        depths,
        versus,
        proxy,
        scores,
        costs,
        references,
        prediction,
        selected,
        targets,
        sweeps,
        predicted,
        quantities,
        headline,
        *benchmark_tables.TABLES,
    )
}


def _selector(file: Path, lr: str) -> tuple[Comparison, Callable[[str, int, int], Sequence[Outcome]]]:
    """A comparison, and its runs by arm, depth and width, at a learning rate or at the arm's best one."""
    comparison = read_comparison(file)
    best = {(each.arm, each.depth, each.width): each.best_lr for each in study_arms(comparison.outcomes)}

    def select(arm: str, depth: int, width: int) -> Sequence[Outcome]:
        rate = best.get((arm, depth, width)) if lr == "best" else float(lr)
        return comparison.select(arm=arm, depth=depth, width=width, lr=rate)

    return comparison, select


def _best_losses(file: Path) -> list[tuple[str, float]]:
    """Arms, or models, each with its validation loss at its best learning rate."""
    data = read_json(file)
    if isinstance(data, list):  # the demo's
        return [(each["arm"], each["val_loss"]) for each in data]
    if "configurations" in data:
        return [(each["name"], each["best_loss"]) for each in data["configurations"]]
    several = len({(run["depth"], run["width"]) for run in data["runs"]}) > 1
    return [
        (f"{row.arm}, {row.depth} layers" if several else row.arm, row.loss.middle)
        for row in arm_rows(read_comparison(file))
        if row.loss is not None
    ]


def _losses(runs: Sequence[Outcome]) -> dict[int, float]:
    return {run.seed: run.final_loss for run in runs if run.ended}


def _last(runs: Sequence[Outcome], key: str) -> float | None:
    """The median over runs of the last reading."""
    values = [run.curves[key].values[-1] for run in runs if key in run.curves and run.curves[key].values]
    return median(values) if values else None


def _arm(arm: str, depth: int, width: int, file: Path) -> str:
    return f"`{arm}`" if len(read_comparison(file).shapes) == 1 else f"`{arm}`, {depth} × {width}"


def _interval(value: Interval | None) -> str:
    if value is None:
        return "–"
    if not math.isfinite(value.middle):
        return "failed"
    half, form = (value.high - value.low) / 2, ".3f" if abs(value.middle) < LARGE else ".2g"
    return f"{value.middle:{form}}" + ("" if math.isnan(half) else f" ± {half:{form}}")


def _test(test: PairedTest | None) -> str:
    if test is None or not test.n:
        return "–"
    sign = f"{test.median:+.3f}" if math.isfinite(test.median) else "failed"
    return f"{sign} (p {_number(test.p_value)}, n {test.n})"


def _headroom(value: float | None, bound: str) -> str:
    if value is None or bound == "unknown":
        return "–" if value is None else "unknown"
    return {"at least": "≥ ", "at most": "≤ "}.get(bound, "") + f"{value:.2g}×"


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float | int) else str(value)


def _is_finite(value: Any) -> bool:
    return isinstance(value, float | int) and math.isfinite(value)


def _markdown(rows: Sequence[Row]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    """Write every table anew."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        page.write_text(with_tables(page, text), encoding="utf-8")


if __name__ == "__main__":
    main()
