"""Does the audit predict the largest stable learning rate? 24 small models, their scores written before any training.

    F=docs/results/2026-11-21-audit-prediction
    python studies/audit_prediction.py score --data SPEC --out $F               # seven minutes on a quiet core
    python studies/audit_prediction.py measure --data SPEC --out $F --runs DIR  # half an hour on two; goes on if killed
    python studies/audit_prediction.py sweep --data SPEC --out $F               # range tests, ten minutes on a core
    python studies/audit_prediction.py evaluate --out $F                        # from the JSON alone

SPEC is for instance 'text:wikitext-2/train.txt,validation=wikitext-2/valid.txt'. The list, the halves and the scores
are fixed before any of the models is trained. What is decided from measurements (which quantity predicts, with which
constants) is decided on the "tuning" half; the "untouched" half then tests it.
"""

import itertools
import math
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import spikeless
from spikeless.config import replace_at
from spikeless.data import PreparedData, Sampler, prepare
from spikeless.diagnostics.probes.learning_rate_range import LearningRateRange, learning_rate_range
from spikeless.errors import UserError
from spikeless.experiments.analysis.learning_rates import study_arms
from spikeless.experiments.analysis.outcome import read_outcome
from spikeless.experiments.analysis.statistics import Kind, rank_correlation
from spikeless.experiments.cell import is_done, outcome_at, refuse_other
from spikeless.experiments.grid import Cell, resolved
from spikeless.experiments.task import Event
from spikeless.experiments.workers import train_cells
from spikeless.files import content_hash, portable, read_json, write_json
from spikeless.preflight.measurements import Measurements, SubLayerReading
from spikeless.preflight.quantities import QUANTITIES
from spikeless.recipes import compose
from spikeless.run import RunConfig
from spikeless.training.build import build_model, fill_vocabulary
from spikeless.training.environment import describe_environment
from spikeless.training.objective import Objective

__all__ = ["CONFIGURATIONS", "HALVES", "RULE", "SHARED", "Configuration", "Reading", "Scored", "composed", "score"]

Half = Literal["tuning", "untouched"]
Quantities = Mapping[str, float | None]

HALVES: tuple[Half, Half] = ("tuning", "untouched")
RULE = (
    "Sorted by recipe, then number of layers, then the SHA-256 of the name, configurations go to the halves in turn, "
    "tuning first. Every recipe and depth occurs an even number of times, so the hash alone decides which of two "
    "configurations of one recipe and depth goes where."
)
TOKENIZER = "bpe:1024"
SEQUENCES, TOKENS = 8, 64  # of a batch, in training and in the audit
SHARED = (
    f"data.tokenizer={TOKENIZER}",
    f"data.batch_size={SEQUENCES}",
    f"data.sequence_length={TOKENS}",
    f"model.context_length={TOKENS}",
    "precision=fp32",
    "steps=100",
    "schedule.warmup_steps=10",
    "optim.weight_decay=0.01",
)
SEEDS = (0, 1, 2)  # of the weights; the batch is the same for all
GPT2, LLAMA = "deep_nano", "llama_nano"
LEARNING_RATES = tuple(float(f"{10 ** (quarter / 4):.3g}") for quarter in range(-10, -2))  # 0.00316 to 0.178
NEAR = 0.5
"""The other seeds run at rates whose loss with the first seed is so near its best one [nats/token]; 0.2 is stable."""
TRAINING = {
    "evaluation.every": 0,
    "evaluation.tokens": 8192,
    "metrics.every": 0,
    "metrics.loggers": (),
    "checkpoint.every": 0,
    "checkpoint.keep_last": 1,
    "checkpoint.keep_best": 0,
}
SWEEP_STEPS = 100
SWEEP_LRS = (1e-4, 1.0)
SWEEP_MARGIN = 2.0
"""A range test ends so far above its lowest loss [nats/token]."""
AVERAGED = 0.8
"""Memory of the average whose least is looked for; chosen, like the probe's own for its rise, on the tuning half."""
KINDS: tuple[Kind, ...] = ("spearman", "kendall")


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A model of the study.

    Attributes:
        name: unique.
        recipe: `deep_nano` (GPT-2) or `llama_nano` (Llama).
        techniques: joined by "+"; "" is the recipe's baseline.
        num_layers: blocks.
        width: D.
        num_heads: query heads.
        extra: further settings of its own, `path=value`.
        half: "tuning" or "untouched", by `RULE`.
    """

    name: str
    recipe: str
    techniques: str
    num_layers: int
    width: int
    num_heads: int
    extra: tuple[str, ...] = ()
    half: Half = "tuning"

    @property
    def settings(self) -> tuple[str, ...]:
        """All assignments `path=value`, those of every configuration first."""
        sizes = (
            f"model.num_layers={self.num_layers}",
            f"model.width={self.width}",
            f"model.num_heads={self.num_heads}",
        )
        return (*SHARED, *sizes, *self.extra)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One audit.

    Attributes:
        seed: of the weights.
        score: log10 of the feature change per unit of learning rate [decades].
        quantities: what else might predict, by name; None where it was not measured.
        seconds: the audit took.
    """

    seed: int
    score: float
    quantities: Quantities
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The audits of one configuration.

    Attributes:
        name: of the configuration.
        half: that it belongs to.
        parameters: numbers in the model.
        readings: one for each seed.
    """

    name: str
    half: Half
    parameters: int
    readings: tuple[Reading, ...] = field(default=())

    @property
    def score(self) -> float:
        """The median over the seeds [decades]."""
        return statistics.median(each.score for each in self.readings)

    @property
    def spread(self) -> float:
        """The range over the seeds [decades]."""
        scores = [each.score for each in self.readings]
        return max(scores) - min(scores)

    @property
    def quantities(self) -> Quantities:
        """The medians over the seeds; None where a seed lacks it."""
        medians: dict[str, float | None] = {}
        for name in self.readings[0].quantities:
            values = [value for each in self.readings if (value := each.quantities[name]) is not None]
            medians[name] = statistics.median(values) if len(values) == len(self.readings) else None
        return medians

    def as_json(self) -> dict[str, Any]:
        """Medians first, then every seed."""
        return {
            "name": self.name,
            "half": self.half,
            "score": self.score,
            "score_range": self.spread,
            "parameters": self.parameters,
            "quantities": dict(self.quantities),
            "seeds": [asdict(each) for each in self.readings],
        }


def _model(
    name: str, recipe: str, size: tuple[int, int, int], techniques: str = "", extra: Sequence[str] = ()
) -> Configuration:
    """A configuration not yet in a half; `size` is layers, width, heads."""
    layers, width, heads = size
    return Configuration(
        name=name,
        recipe=recipe,
        techniques=techniques,
        num_layers=layers,
        width=width,
        num_heads=heads,
        extra=tuple(extra),
    )


def _divided(configurations: Sequence[Configuration]) -> tuple[Configuration, ...]:
    """The same, in the same order, each in the half that `RULE` gives it."""
    order = sorted(configurations, key=lambda each: (each.recipe, each.num_layers, content_hash(each.name)))
    halves = {each.name: HALVES[index % 2] for index, each in enumerate(order)}
    cells = Counter((each.recipe, each.num_layers) for each in configurations)
    if len(halves) != len(configurations) or any(count % 2 for count in cells.values()):
        raise UserError("configurations need names of their own, and an even number for each recipe and depth")
    return tuple(replace(each, half=halves[each.name]) for each in configurations)


CONFIGURATIONS = _divided(
    [
        _model("gpt2-4x64", GPT2, (4, 64, 4)),
        _model("gpt2-4x32-xavier", GPT2, (4, 32, 4), "xavier_init"),
        _model("gpt2-6x48-embed-norm", GPT2, (6, 48, 4), "embed_norm"),
        _model("gpt2-6x24-gpt2-init", GPT2, (6, 24, 2), "gpt2_init"),
        _model("gpt2-8x32-scaled-embed", GPT2, (8, 32, 4), "scaled_embed"),
        _model(
            "gpt2-8x64-std-one-relu-rms",
            GPT2,
            (8, 64, 4),
            "embed_std_one",
            ("model.ffn.activation=relu", "model.norm=RMSNorm"),
        ),
        _model("gpt2-12x32", GPT2, (12, 32, 4)),
        _model("gpt2-12x48-mlra-xavier", GPT2, (12, 48, 4), "mlra+xavier_init"),
        _model("gpt2-12x64-gpt2-init-embed-norm", GPT2, (12, 64, 4), "gpt2_init+embed_norm"),
        _model("gpt2-12x24-std-one", GPT2, (12, 24, 2), "embed_std_one"),
        _model("gpt2-16x48-embed-detach", GPT2, (16, 48, 4), "embed_detach"),
        _model("gpt2-16x32-xavier-scaled-embed", GPT2, (16, 32, 4), "xavier_init+scaled_embed"),
        _model("gpt2-24x32-xavier-rms", GPT2, (24, 32, 4), "xavier_init", ("model.norm=RMSNorm",)),
        _model("gpt2-24x48-mlra-scaled-embed", GPT2, (24, 48, 4), "mlra+scaled_embed"),
        _model("llama-4x48", LLAMA, (4, 48, 4)),
        _model("llama-4x32-xavier", LLAMA, (4, 32, 4), "xavier_init"),
        _model("llama-8x64-scaled-embed", LLAMA, (8, 64, 4), "scaled_embed"),
        _model("llama-8x24-small-std-one", LLAMA, (8, 24, 4), "small_init+embed_std_one"),
        _model(
            "llama-8x32-xavier-relu-layernorm",
            LLAMA,
            (8, 32, 4),
            "xavier_init",
            ("model.ffn.activation=relu", "model.norm=LayerNorm"),
        ),
        _model("llama-8x48-mlra-small", LLAMA, (8, 48, 4), "mlra+small_init"),
        _model("llama-12x48-small-embed-norm", LLAMA, (12, 48, 4), "small_init+embed_norm"),
        _model("llama-12x32-normal-0.2", LLAMA, (12, 32, 4), "", ("init.scheme.scale=0.2",)),
        _model("llama-24x32-gpt2-init", LLAMA, (24, 32, 4), "gpt2_init"),
        _model("llama-24x24-xavier-embed-detach", LLAMA, (24, 24, 4), "xavier_init+embed_detach"),
    ]
)


def composed(configuration: Configuration, data: str, seed: int = 0, assignments: Sequence[str] = ()) -> RunConfig:
    """The run of a configuration on a corpus, with its recipe's learning rate unless `assignments` say another.

    Raises:
        UserError: a setting is wrong.
    """
    techniques = [configuration.techniques] if configuration.techniques else []
    given = (*configuration.settings, f"data.spec={data}", f"seed={seed}", *assignments)
    return compose(configuration.recipe, techniques, given)


def score(
    configuration: Configuration, data: str, seeds: Sequence[int] = SEEDS, told: Callable[[], None] = lambda: None
) -> Scored:
    """Audit a configuration at its initial weights, on one batch of the size that it is trained with.

    Args:
        configuration: what to audit.
        data: a corpus spec.
        seeds: of the weights.
        told: called after each audit.

    Raises:
        UserError: the data cannot be read, or no score could be measured.
    """
    readings, parameters = [], 0
    for seed in seeds:
        started = time.perf_counter()
        report = spikeless.audit(composed(configuration, data, seed), data=data, sequences=SEQUENCES, tokens=TOKENS)
        if report.score is None:
            raise UserError(f"{configuration.name}, seed {seed}: the audit has no score")
        parameters = report.measured.model.parameters
        readings.append(
            Reading(
                seed=seed,
                score=report.score,
                quantities=_quantities(report.measured),
                seconds=round(time.perf_counter() - started, 2),
            )
        )
        told()
    return Scored(name=configuration.name, half=configuration.half, parameters=parameters, readings=tuple(readings))


def _quantities(measured: Measurements) -> Quantities:
    """What else might predict: the audit's main numbers, the first layer's, and growth over depth."""
    theory, rate = measured.theory, measured.learning_rate
    logits = [layer.attention.logit_max for layer in measured.layers if layer.attention]
    rms = [each.gradient_rms for each in measured.tensors if each.gradient_rms is not None]
    first = measured.layers[0]
    found: dict[str, float | None] = {name: read(measured) for name, (_, read) in QUANTITIES.items()}
    for each in first.sub_layers:
        found |= _sub_layer(f"first_{each.kind}", each)
    return found | {
        "first_stream_std": first.residual_std,
        "theory_log_gain": theory and theory.log_gain,
        "theory_first_ffn_gain_with_positions": theory and theory.first_layer_ffn_gain_with_positions,
        "gradient_log_slope": measured.gradient_growth and measured.gradient_growth.log_slope,
        "residual_log_slope": measured.residual_growth and measured.residual_growth.log_slope,
        "largest_attention_logit": max(logits, default=None),
        "feature_change": rate and rate.feature_change,
        "critical_sharpness": rate and rate.sharpness,
        "smallest_gradient_rms_by_eps": min(rms, default=None) and min(rms) / rate.eps if rate else None,
    }


def _sub_layer(prefix: str, reading: SubLayerReading) -> Quantities:
    """Estimate, bound and measured norm of a sub-layer's Jacobian, and the std of its shortcut."""
    return {
        f"{prefix}_estimate": reading.estimate,
        f"{prefix}_bound": reading.bound,
        f"{prefix}_measured": reading.measured,
        f"{prefix}_shortcut_std": reading.shortcut and reading.shortcut.median,
        f"{prefix}_shortcut_std_min": reading.shortcut and reading.shortcut.min,
    }


def _without_folders(data: str) -> str:
    """A spec in which files stand without the folders that they have on this machine."""
    return re.sub(r"[^:=,+]*/", "", data)


app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True)
Data = Annotated[str, typer.Option("--data", help="The corpus, as in docs/data.md.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of the results.")]


@app.callback()
def _study() -> None:
    """Does the audit predict the largest stable learning rate?"""


@app.command("score")
def score_command(data: Data, out: Out) -> None:
    """Write the list of configurations and the audit's score of each; nothing is trained."""
    console = Console(highlight=False)
    data_hash = prepare(data, TOKENIZER).data_hash
    listed = [{**asdict(each), "settings": each.settings[len(SHARED) :]} for each in CONFIGURATIONS]
    configurations = {"rule": RULE, "shared": SHARED, "configurations": listed}
    write_json(out / "configurations.json", portable(configurations))
    scored: list[Scored] = []
    with _progress(console) as progress:
        task = progress.add_task("audits", total=len(CONFIGURATIONS) * len(SEEDS))
        for each in CONFIGURATIONS:
            progress.update(task, description=each.name)
            scored.append(score(each, data, told=lambda: progress.advance(task)))
    scores = {
        "date": datetime.now(UTC).date().isoformat(),
        "environment": describe_environment(torch.device("cpu")),
        "data": _without_folders(data),
        "data_hash": data_hash,
        "batch": {"sequences": SEQUENCES, "tokens_per_sequence": TOKENS},
        "seeds": SEEDS,
        "scores": [each.as_json() for each in scored],
    }
    write_json(out / "scores.json", portable(scores))
    console.print(_table(scored))


@app.command("measure")
def measure_command(
    data: Data,
    out: Out,
    runs: Annotated[Path, typer.Option("--runs", help="Folder for the runs; finished ones in it are kept.")],
    jobs: Annotated[int, typer.Option("--jobs", help="Processes of one thread each.", min=1)] = 2,
) -> None:
    """Train every configuration at every learning rate with the first seed, and with the others where it may matter."""
    console = Console(highlight=False)
    names, cells = _cells(data, runs)
    for cell in cells:
        refuse_other(cell)
    first = [cell for cell in cells if cell.run.seed == SEEDS[0]]
    if not _train([cell for cell in first if not is_done(cell)], jobs, console):
        raise typer.Exit(0)
    losses = {cell.folder: outcome_at(cell).final_loss for cell in first}
    best = {name: min(loss for folder, loss in losses.items() if names[folder] == name) for name in set(names.values())}
    near = {
        (names[cell.folder], cell.run.optim.lr)
        for cell in first
        if losses[cell.folder] <= best[names[cell.folder]] + NEAR
    }
    cells = [cell for cell in cells if cell.folder in losses or (names[cell.folder], cell.run.optim.lr) in near]
    whole = _train([cell for cell in cells if not is_done(cell)], jobs, console)
    outcomes = [replace(outcome_at(cell), arm=names[cell.folder], curves={}) for cell in cells if is_done(cell)]
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "environment": read_json(cells[0].folder / "environment.json"),
        "data": _without_folders(data),
        "learning_rates": LEARNING_RATES,
        "seeds": SEEDS,
        "near": NEAR,
        "whole": whole,
    }
    write_json(out / "measured.json", portable({**about, "runs": [each.to_json() for each in outcomes]}))


def _train(todo: Sequence[Cell], jobs: int, console: Console) -> bool:
    """Train cells; False if it was interrupted."""
    with _progress(console) as progress:
        task = progress.add_task("runs", total=len(todo))

        def tell(event: Event) -> None:
            if event.outcome is not None:
                progress.advance(task)
                console.print(f"{event.cell.folder.name}: {event.outcome.final_val_loss}", markup=False)

        whole = train_cells(todo, jobs, 1, tell)
    if not whole:
        console.print("interrupted; the same command goes on")
    return whole


@app.command("sweep")
def sweep_command(data: Data, out: Out) -> None:
    """Train each configuration for a moment while the learning rate grows; weights start as in the runs."""
    console = Console(highlight=False)
    prepared = prepare(data, TOKENIZER)
    sweeps: list[dict[str, Any]] = []
    with _progress(console) as progress:
        task = progress.add_task("range tests", total=len(CONFIGURATIONS) * len(SEEDS))
        for configuration, seed in itertools.product(CONFIGURATIONS, SEEDS):
            started = time.perf_counter()
            found = _swept(fill_vocabulary(composed(configuration, data, seed), prepared), prepared)
            seconds = round(time.perf_counter() - started, 2)
            sweeps.append({"name": configuration.name, "seed": seed, "seconds": seconds, **asdict(found)})
            progress.advance(task)
    environment = describe_environment(torch.device("cpu"))
    about = {"date": datetime.now(UTC).date().isoformat(), "environment": environment, "data": _without_folders(data)}
    about |= {"steps": SWEEP_STEPS, "lrs": SWEEP_LRS, "margin": SWEEP_MARGIN}
    write_json(out / "sweeps.json", portable({**about, "sweeps": sweeps}))


def _swept(run: RunConfig, data: PreparedData) -> LearningRateRange:
    """The range test of a run, on batches of the training data that its first steps do not see."""
    torch.manual_seed(run.seed)
    model = build_model(run, "cpu")
    objective = Objective(model, run.loss, torch.device("cpu"), "fp32")
    sampler = Sampler(data.train, TOKENS, run.seed + 1000)
    return learning_rate_range(
        lambda step: objective(*sampler.batch(step, SEQUENCES)),
        model.parameters(),
        lambda _: run.optim.build(model.named_parameters()),
        steps=SWEEP_STEPS,
        low=SWEEP_LRS[0],
        high=SWEEP_LRS[1],
        margin=SWEEP_MARGIN,
        max_norm=1.0,
    )


def _readings(swept: LearningRateRange) -> dict[str, float]:
    """log10 of the rate of the least averaged loss, and of the one that raises it; beyond the last if none does."""
    average, least, best = swept.losses[0], math.inf, swept.lrs[0]
    for lr, loss in zip(swept.lrs, swept.losses, strict=True):
        average = AVERAGED * average + (1 - AVERAGED) * loss
        if average < least:
            least, best = average, lr
    beyond = swept.lrs[-1] ** 2 / swept.lrs[-2]
    return {"range_best_lr": math.log10(best), "range_rise": math.log10(swept.rise() or beyond)}


@app.command("evaluate")
def evaluate_command(out: Out) -> None:
    """How well the score orders the configurations by their largest stable learning rate, on each half."""
    scores = {each["name"]: each for each in read_json(out / "scores.json", "scores")["scores"]}
    outcomes = [read_outcome(each) for each in read_json(out / "measured.json", "runs")["runs"]]
    studies = {study.arm: study for study in study_arms(outcomes)}
    rows = [
        {
            "name": each.name,
            "half": each.half,
            "score": scores[each.name]["score"],
            "score_range": scores[each.name]["score_range"],
            "largest_stable_lr": studies[each.name].largest_stable_lr,
            "at_grid_top": studies[each.name].stable_censored,
            "best_lr": studies[each.name].best_lr,
            "best_loss": studies[each.name].best_loss,
            "sensitivity": studies[each.name].sensitivity,
            "losses": studies[each.name].losses,
        }
        for each in CONFIGURATIONS
    ]
    quantities = {"score": {name: each["score"] for name, each in scores.items()}}
    quantities |= {
        key: {name: each["quantities"].get(key) for name, each in scores.items()}
        for key in next(iter(scores.values()))["quantities"]
    }
    sizes = {each.name: each for each in CONFIGURATIONS}
    quantities |= {
        "log10_width": {name: math.log10(each.width) for name, each in sizes.items()},
        "log10_layers": {name: math.log10(each.num_layers) for name, each in sizes.items()},
    }
    readings: dict[str, list[dict[str, float]]] = {}
    for each in read_json(out / "sweeps.json", "sweeps")["sweeps"]:
        found = {key: each[key] for key in ("lrs", "losses", "first_loss", "limit")}
        readings.setdefault(each["name"], []).append(_readings(LearningRateRange(**found)))
    swept = {
        reading: {name: statistics.median(each[reading] for each in of_seeds) for name, of_seeds in readings.items()}
        for reading in ("range_best_lr", "range_rise")
    }
    evaluation = {
        "sweeps": {
            reading: {
                target: {half: _agreement(rows, values, half, target) for half in (*HALVES, "all")}
                for target in ("largest_stable_lr", "best_lr")
            }
            for reading, values in swept.items()
        },
        "rise_over_best_lr": {
            half: statistics.median(
                10 ** swept["range_rise"][row["name"]] / row["best_lr"] for row in rows if half in ("all", row["half"])
            )
            for half in (*HALVES, "all")
        },
        "selected": _selected(rows, quantities),
        "largest_stable_lr": {
            half: {key: _agreement(rows, values, half) for key, values in quantities.items()}
            for half in (*HALVES, "all")
        },
        "configurations": rows,
    }
    evaluation |= {
        target: {half: _agreement(rows, quantities["score"], half, target) for half in (*HALVES, "all")}
        for target in ("best_lr", "best_loss", "sensitivity")
    }
    write_json(out / "evaluation.json", portable(evaluation))
    console = Console(highlight=False, width=110)
    console.print(_results_table(rows))
    console.print(_agreement_table(evaluation["largest_stable_lr"]))


def _cells(data: str, runs: Path) -> tuple[dict[Path, str], list[Cell]]:
    """Every run, one seed of everything first, and the configuration's name by the run's folder."""
    vocabulary = prepare(data, TOKENIZER).tokenizer.vocab_size
    names: dict[Path, str] = {}
    cells = []
    for seed in SEEDS:
        for configuration in CONFIGURATIONS:
            for lr in LEARNING_RATES:
                run = replace_at(composed(configuration, data, seed), TRAINING | {"optim.lr": lr})
                cell = Cell(run=run, folder=runs / f"{configuration.name}-lr{lr:g}-seed{seed}")
                names[cell.folder] = configuration.name
                cells.append(cell)
    return names, resolved(cells, "fp32", vocabulary)


def _selected(rows: Sequence[Mapping[str, Any]], quantities: Mapping[str, Mapping[str, float | None]]) -> Any:
    """The quantity, and the pair, that predict the tuning half best, and how they do on the untouched one.

    A pair predicts by least squares of log10 of the rate on both, each as its rank in the tuning half's order or, for
    another half, between those; it is chosen by the rank correlation of leave-one-out predictions.
    """
    tuning, untouched = ([row for row in rows if row["half"] == half] for half in HALVES)
    known = {
        key: values
        for key, values in quantities.items()
        if all(isinstance(values[row["name"]], int | float) and math.isfinite(values[row["name"]] or 0) for row in rows)
    }

    def matrix(keys: Sequence[str], of: Sequence[Mapping[str, Any]]) -> np.ndarray:
        columns = []
        for key in keys:
            own = np.sort([float(known[key][row["name"]] or 0) for row in tuning])
            columns.append(np.searchsorted(own, [float(known[key][row["name"]] or 0) for row in of], side="left"))
        return np.column_stack([*columns, np.ones(len(of))]).astype(float)

    def rates(of: Sequence[Mapping[str, Any]]) -> np.ndarray:
        return np.log10([row["largest_stable_lr"] for row in of])

    def left_out(keys: Sequence[str]) -> float:
        x, y = matrix(keys, tuning), rates(tuning)
        others = [[other for other in range(len(y)) if other != each] for each in range(len(y))]
        predicted = [x[each] @ np.linalg.lstsq(x[rest], y[rest], rcond=None)[0] for each, rest in enumerate(others)]
        value = rank_correlation(predicted, list(y), resamples=0).value
        return value if math.isfinite(value) else -1.0

    found = {}
    for count in (1, 2):
        best = max(itertools.combinations(known, count), key=left_out)
        fit = np.linalg.lstsq(matrix(best, tuning), rates(tuning), rcond=None)[0]
        predicted = list(matrix(best, untouched) @ fit)
        found[f"{count}"] = {
            "quantities": best,
            "tuning_left_out": left_out(best),
            "untouched": {kind: asdict(rank_correlation(predicted, list(rates(untouched)), kind)) for kind in KINDS},
        }
    return found


def _agreement(
    rows: Sequence[Mapping[str, Any]],
    values: Mapping[str, float | None],
    half: str,
    target: str = "largest_stable_lr",
) -> dict[str, Any] | None:
    """Rank correlations of a quantity with what was measured; None if one lacks the quantity."""
    of_half = [row for row in rows if half in ("all", row["half"]) and row[target] is not None]
    x = [values[row["name"]] for row in of_half]
    if any(each is None for each in x):
        return None
    y = [row[target] for row in of_half]
    found = {kind: rank_correlation([float(each or 0) for each in x], y, kind) for kind in KINDS}
    return {kind: asdict(each) for kind, each in found.items()}


def _results_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Configurations by score, with what was measured of them."""
    table = Table("configuration", "half", "score", "largest stable lr", "best lr", "best loss", "sensitivity")
    for row in sorted(rows, key=lambda row: row["score"]):
        stable = row["largest_stable_lr"]
        cells = ["none" if stable is None else ("≥ " if row["at_grid_top"] else "") + f"{stable:.3g}"]
        cells += [f"{row[key]:.3g}" for key in ("best_lr", "best_loss", "sensitivity")]
        table.add_row(row["name"], row["half"], f"{row['score']:.2f}", *cells)
    return table


def _agreement_table(halves: Mapping[str, Mapping[str, Any]]) -> Table:
    """Quantities by how well they order the tuning half."""
    table = Table("quantity", *(f"{half}, {kind}" for half in halves for kind in KINDS))
    order = [key for key, found in halves[HALVES[0]].items() if found]
    order.sort(key=lambda key: -abs(halves[HALVES[0]][key]["spearman"]["value"]))
    for key in order:
        found = [halves[half][key] for half in halves]
        cells = [
            f"{each[kind]['value']:.2f} [{each[kind]['low']:.2f}, {each[kind]['high']:.2f}]" if each else "–"
            for each in found
            for kind in KINDS
        ]
        table.add_row(key, *cells)
    return table


def _progress(console: Console) -> Progress:
    bar = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"))
    return Progress(
        TextColumn("[bold]{task.description}"),
        *bar,
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


def _table(scored: Sequence[Scored]) -> Table:
    """Configurations by score, with a few of the other numbers."""
    shown = ("critical_lr", "first_layer_ffn_gain", "gradient_ratio", "theory_log_gain")
    table = Table("configuration", "half", "score", "range", *shown, "s/audit")
    for each in sorted(scored, key=lambda each: each.score):
        values = (each.quantities[name] for name in shown)
        cells = ("–" if value is None else f"{value:.3g}" for value in values)
        seconds = statistics.median(reading.seconds for reading in each.readings)
        table.add_row(each.name, each.half, f"{each.score:.3f}", f"{each.spread:.3f}", *cells, f"{seconds:.1f}")
    return table


def main() -> None:
    """Run a command; what the user got wrong is one line."""
    try:
        app()
    except UserError as error:
        Console(stderr=True, highlight=False).print(f"error: {error}", style="red", markup=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
