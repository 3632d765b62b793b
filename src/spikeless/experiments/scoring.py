"""Final checkpoints of a grid, scored as `spikeless eval` does: perplexity, bits per byte, LAMBADA."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from spikeless.config import parse_calls
from spikeless.data import parse_corpus
from spikeless.data.corpora import Tally
from spikeless.data.mixture import parse_mixture
from spikeless.data.split import Split
from spikeless.evaluation import LambadaExample, evaluate_lambada, evaluate_perplexity, load_subject
from spikeless.experiments.analysis.comparison import Comparison
from spikeless.experiments.analysis.learning_rates import study_arms
from spikeless.experiments.analysis.outcome import Outcome
from spikeless.files import content_hash, portable, read_json, write_json
from spikeless.run import RunConfig
from spikeless.training.environment import resolve_device

__all__ = ["best_outcomes", "score_best"]

SCORES = "scores.json"
CHARACTERS_PER_TOKEN = 4
"""So much validation text is read for each token that the run's own evaluation takes."""


def best_outcomes(comparison: Comparison) -> list[Outcome]:
    """The runs at each arm's best learning rate that have a model to score."""
    best = {(study.arm, study.depth, study.width): study.best_lr for study in study_arms(comparison.outcomes)}
    return [
        each
        for each in comparison.outcomes
        if each.state == "finished" and not each.failed and each.lr == best.get((each.arm, each.depth, each.width))
    ]


def score_best(
    comparison: Comparison, folder: Path, run: RunConfig, lambada: Sequence[LambadaExample] = ()
) -> Comparison:
    """The comparison with scores of the runs at each arm's best learning rate; known ones are not computed again.

    Scored are perplexity and bits per byte of the first validation text, documents each by itself, and LAMBADA.

    Args:
        comparison: without scores.
        folder: the grid's.
        run: tells the data, how much of it, and the device.
        lambada: passages; none if empty.

    Raises:
        UserError: a checkpoint is damaged.
    """
    wanted = {each.run for each in best_outcomes(comparison)}
    if not wanted:
        return comparison
    text = list(_head(_documents(run), CHARACTERS_PER_TOKEN * run.evaluation.tokens))
    techniques = [call.name for arm in comparison.arms for call in parse_calls(arm)]
    trusted = {name.partition(":")[0] for name in techniques if ":" in name}  # the user has named them
    outcomes = [
        replace(each, scores=_scores(folder / each.run, run, text, lambada, trusted)) if each.run in wanted else each
        for each in comparison.outcomes
    ]
    return replace(comparison, outcomes=tuple(outcomes))


def _scores(
    folder: Path, run: RunConfig, text: Sequence[str], lambada: Sequence[LambadaExample], trusted: Collection[str]
) -> dict[str, float]:
    key = content_hash(*text, "LAMBADA", *(part for each in lambada for part in (each.context, each.target)))
    if (folder / SCORES).exists():
        known = read_json(folder / SCORES, "key", "scores")
        if known["key"] == key:
            return {name: float(value) for name, value in known["scores"].items()}
    subject = load_subject(folder, device=resolve_device(run.device), trusted=trusted)
    scores: dict[str, float] = {}
    if text:
        found = evaluate_perplexity(subject, text)
        scores |= {"perplexity": found.perplexity, "bits_per_byte": found.bits_per_byte}
    if lambada:
        words = evaluate_lambada(subject, lambada)
        scores |= {"lambada_perplexity": words.perplexity, "lambada_accuracy": words.accuracy}
    write_json(folder / SCORES, {"key": key, "scores": portable(scores)})
    return scores


def _documents(run: RunConfig) -> Iterator[str]:
    """Validation documents; none of prepared shards and mixtures, which hold no text of one kind."""
    (_, spec), *others = parse_mixture(run.data.spec)
    if others or spec.strip().startswith("shards:"):
        return
    split = Split(corpus=parse_corpus(spec), validation_fraction=run.data.validation_fraction)
    yield from split.documents("validation", Tally())


def _head(documents: Iterable[str], characters: int) -> Iterator[str]:
    """The first documents, so many characters in all."""
    for text in documents:
        yield text[:characters]
        characters -= len(text)
        if characters <= 0:
            return
