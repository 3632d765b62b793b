"""What a table of counts reaches on the data of the committed experiments: the losses that a model has to beat.

    python studies/reference_losses.py --wikitext 'text:wikitext-2/train.txt,validation=wikitext-2/valid.txt'

writes `reference.json` beside each page of docs/results that it concerns. Counts are over exactly the tokens that a run
with this seed has seen; they are scored on the run's own validation windows, as its validation loss is.

    uniform   ln V
    unigram   p(b) = (c(b) + 1) / (N + V)
    bigram    p(b | a) = (c(ab) + 50 p(b)) / (c(a) + 50)
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated

import numpy as np
import typer
from torch import Tensor

from spikeless.config import paths
from spikeless.data import PreparedData, Sampler, prepare, validation_batches
from spikeless.experiments.analysis.comparison import Comparison, read_comparison
from spikeless.files import write_json
from spikeless.recipes import compose
from spikeless.run import DataConfig, RunConfig

__all__ = ["EXPERIMENTS", "Losses", "reference_losses"]

RESULTS = Path(__file__).parent.parent / "docs" / "results"
BACKED_OFF = 50.0
"""The unigram counts as so many occurrences of each first token."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A committed experiment, by the JSON that holds its outcomes.

    Attributes:
        file: below `docs/results`; a comparison tells its own settings and seeds.
        settings: of its runs, on the recipe `deep_nano`, where the file is no comparison.
        seeds: likewise.
        pydocs: it was run on the documentation of its machine, which another machine has not.
    """

    file: str
    settings: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    pydocs: bool = False


EXPERIMENTS = (
    Experiment(file="2026-11-21-spike-no-more/comparison.json"),
    Experiment(file="2026-11-21-spike-no-more-variants/relu.json"),
    Experiment(file="2026-11-21-spike-no-more-variants/rmsnorm.json"),
    Experiment(file="2026-11-21-spike-no-more-variants/swiglu.json"),
    Experiment(file="2026-11-21-tev-mlra/comparison.json"),
    Experiment(file="2026-11-21-tev-mlra/longer.json"),
    Experiment(file="2026-11-21-tev-mlra/longer-six.json"),
    Experiment(
        file="2026-11-21-audit-prediction/evaluation.json",
        settings=(
            "steps=100",
            "data.tokenizer=bpe:1024",
            "data.batch_size=8",
            "data.sequence_length=64",
            "evaluation.tokens=8192",
        ),
        seeds=(0, 1, 2),
    ),
    Experiment(file="2026-11-21-demo/summary.json", seeds=(0,), pydocs=True),
)


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Mean cross-entropy on the validation windows [nats/token]."""

    uniform: float
    unigram: float
    bigram: float


def reference_losses(seen: Iterable[tuple[Tensor, Tensor]], held_out: Iterable[tuple[Tensor, Tensor]], vocab_size: int):
    """What counts of the tokens that were seen reach on those held out.

    Args:
        seen: inputs and targets of every training step, int64 [windows, T].
        held_out: of validation, likewise.
        vocab_size: V [tokens].

    Returns:
        The losses, as `Losses`.
    """
    pairs = np.zeros(vocab_size * vocab_size)
    for inputs, targets in seen:
        pairs += np.bincount(_pairs(inputs, targets, vocab_size), minlength=pairs.size)
    counts = pairs.reshape(vocab_size, vocab_size)
    unigram = (counts.sum(0) + 1) / (counts.sum() + vocab_size)
    bigram = (counts + BACKED_OFF * unigram) / (counts.sum(1, keepdims=True) + BACKED_OFF)
    wanted = np.concatenate([_pairs(inputs, targets, vocab_size) for inputs, targets in held_out])
    return Losses(
        uniform=math.log(vocab_size),
        unigram=-float(np.log(unigram[wanted % vocab_size]).mean()),
        bigram=-float(np.log(bigram.reshape(-1)[wanted]).mean()),
    )


def _pairs(inputs: Tensor, targets: Tensor, vocab_size: int) -> np.ndarray:
    """Each target with the token before it, as one number."""
    return (inputs * vocab_size + targets).flatten().numpy()


def losses_of_seed(run: RunConfig, data: PreparedData, seed: int) -> Losses:
    """Of the batches that a run with this seed saw, on the windows of its validation loss."""
    config, steps = run.data, range(run.steps)
    sampler = Sampler(data.train, config.sequence_length, seed)
    seen = (sampler.batch(step, config.batch_size) for step in steps)
    held_out = validation_batches(data.validation, config.sequence_length, config.batch_size, run.evaluation.tokens)
    return reference_losses(seen, held_out, data.tokenizer.vocab_size)


def described(experiment: Experiment, comparison: Comparison | None, spec: str) -> tuple[RunConfig, Sequence[int]]:
    """The baseline of an experiment on this data, and the seeds of its runs."""
    settings, seeds = list(experiment.settings), experiment.seeds
    if comparison is not None:
        about = comparison.about
        known = set(paths(compose(about.recipe)))
        settings = [each for each in about.settings if each.partition("=")[0] in known]
        settings += [f"steps={about.steps}", f"data.tokenizer={about.tokenizer}"]
        seeds = tuple(sorted({run.seed for run in comparison.outcomes}))
    run = compose("deep_nano", (), settings)
    assert comparison is None or run.data.batch_size * run.data.sequence_length == comparison.about.tokens_per_step
    return run, seeds


def entry(experiment: Experiment, wikitext: str) -> dict:
    """The reference losses of an experiment as plain data, with the hash of the tokens that they are of."""
    path = RESULTS / experiment.file
    comparison = read_comparison(path) if "runs" in path.read_text(encoding="utf-8") and not experiment.seeds else None
    spec = DataConfig().spec if experiment.pydocs else wikitext
    run, seeds = described(experiment, comparison, spec)
    data = prepare(spec, run.data.tokenizer, validation_fraction=run.data.validation_fraction)
    losses = [losses_of_seed(run, data, seed) for seed in seeds]
    recorded = comparison and comparison.about.environment.get("data_hash")
    assert recorded in (None, data.data_hash), f"{experiment.file} was trained on other tokens"
    return {
        "file": path.name,
        "data": "pydocs, of another machine" if experiment.pydocs else "WikiText-2",
        "data_hash": data.data_hash,
        "vocabulary": data.tokenizer.vocab_size,
        "tokens_seen": run.steps * run.data.batch_size * run.data.sequence_length,
        "validation_tokens": run.evaluation.tokens,
        "seeds": dict(zip(map(str, seeds), map(asdict, losses), strict=True)),
        **{name: mean(getattr(each, name) for each in losses) for name in ("uniform", "unigram", "bigram")},
    }


def main(
    wikitext: Annotated[
        str, typer.Option("--wikitext", help="Data spec of WikiText-2 as plain text, with validation=")
    ],
) -> None:
    """Write `reference.json` beside each page."""
    pages: dict[Path, list[dict]] = {}
    for experiment in EXPERIMENTS:
        found = entry(experiment, wikitext)
        pages.setdefault((RESULTS / experiment.file).parent, []).append(found)
        print(experiment.file, *(f"{name} {found[name]:.3f}" for name in ("uniform", "unigram", "bigram")))
    for folder, entries in pages.items():
        write_json(folder / "reference.json", {"made_by": "studies/reference_losses.py", "losses": entries})


if __name__ == "__main__":
    typer.run(main)
