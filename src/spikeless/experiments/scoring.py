"""Final checkpoints of a grid, scored as `spikeless eval` does: perplexity, bits per byte, LAMBADA."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from spikeless.data import parse_corpus, split_reading
from spikeless.data.documents import Document, TokenIds, content_of
from spikeless.data.mixture import parse_mixture
from spikeless.data.split import Split
from spikeless.evaluation import LambadaExample, evaluate_lambada, evaluate_perplexity, load_subject
from spikeless.experiments.analysis.comparison import Comparison
from spikeless.experiments.analysis.learning_rates import study_arms
from spikeless.experiments.analysis.outcome import Outcome
from spikeless.experiments.cell import MemoryMeter
from spikeless.experiments.grid import Cell
from spikeless.experiments.task import Event
from spikeless.files import content_hash, portable, read_json, write_json
from spikeless.loggers import Logger
from spikeless.run import RunConfig
from spikeless.training.environment import resolve_device

__all__ = ["Scoring", "best_outcomes", "scorings"]

SCORES = "scores.json"
CHARACTERS_PER_TOKEN = 2
"""So much validation text is scored for each token of the run's own evaluation, so that it costs no more than that."""


def best_outcomes(comparison: Comparison) -> list[Outcome]:
    """The runs at each arm's best learning rate that have a model to score."""
    best = {(study.arm, study.depth, study.width): study.best_lr for study in study_arms(comparison.outcomes)}
    return [
        each
        for each in comparison.outcomes
        if each.state == "finished" and not each.failed and each.lr == best.get((each.arm, each.depth, each.width))
    ]


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Score the final checkpoint of a cell.

    Attributes:
        cell: trained.
        text: documents, each scored by itself.
        lambada: passages; none if empty.
        trusted: modules outside the package whose parts the run may name.
    """

    cell: Cell
    text: tuple[Document, ...]
    lambada: tuple[LambadaExample, ...]
    trusted: frozenset[str]

    @property
    def keys(self) -> dict[str, str]:
        """By part that is asked for, the hash of its texts: scores of others are not these."""
        keys = {"text": content_hash(*map(content_of, self.text))} if self.text else {}
        if self.lambada:
            keys["lambada"] = content_hash(*(part for each in self.lambada for part in (each.context, each.target)))
        return keys

    def known(self) -> dict[str, float] | None:
        """The scores if they were computed before, with those that were asked for earlier."""
        parts = self._parts()
        if any(part not in parts or parts[part]["key"] != key for part, key in self.keys.items()):
            return None
        return {name: float(value) for part in parts.values() for name, value in part["scores"].items()}

    def do(self, meter: MemoryMeter, rows: Logger) -> Event:
        """Compute the scores and keep them in the run folder.

        Raises:
            UserError: the checkpoint is damaged.
        """
        subject = load_subject(self.cell.folder, device=resolve_device(self.cell.run.device), trusted=self.trusted)
        found: dict[str, dict[str, float]] = {}
        if self.text:
            text = evaluate_perplexity(subject, self.text)
            found["text"] = {"perplexity": text.perplexity}
            if text.bits_per_byte is not None:
                found["text"]["bits_per_byte"] = text.bits_per_byte
        if self.lambada:
            words = evaluate_lambada(subject, self.lambada)
            found["lambada"] = {"lambada_perplexity": words.perplexity, "lambada_accuracy": words.accuracy}
        parts = {part: {"key": key, "scores": portable(found[part])} for part, key in self.keys.items()}
        write_json(self.cell.folder / SCORES, {"parts": self._parts() | parts})
        return Event(cell=self.cell, scores=self.known())

    def _parts(self) -> dict[str, Any]:
        """What stands in the run folder."""
        path = self.cell.folder / SCORES
        return read_json(path).get("parts", {}) if path.exists() else {}

    def left(self) -> Event:
        """No scores."""
        return Event(cell=self.cell, scores={})

    def lost(self, message: str) -> Event:
        """No scores."""
        return Event(cell=self.cell, scores={})


def scorings(
    comparison: Comparison,
    cells: Sequence[Cell],
    run: RunConfig,
    trusted: frozenset[str],
    lambada: Sequence[LambadaExample] = (),
) -> list[Scoring]:
    """What is to be scored: the runs at each arm's best learning rate, on the first validation text and on LAMBADA.

    Args:
        comparison: of the cells, and perhaps of more.
        cells: that can be scored.
        run: tells the data, and how much of it.
        trusted: modules outside the package that the user has named.
        lambada: passages; none if empty.
    """
    wanted = {each.run for each in best_outcomes(comparison)}
    text = tuple(_head(_documents(run), CHARACTERS_PER_TOKEN * run.evaluation.tokens)) if wanted else ()
    return [
        Scoring(cell=cell, text=text, lambada=tuple(lambada), trusted=trusted)
        for cell in cells
        if cell.folder.name in wanted
    ]


def _documents(run: RunConfig) -> Iterator[Document]:
    """Validation documents; none of prepared shards and mixtures, which hold no text of one kind, nor of token ids."""
    (_, spec), *others = parse_mixture(run.data.spec)
    if others or spec.strip().startswith("shards:"):
        return
    split = Split(corpus=parse_corpus(split_reading(spec)[0]), validation_fraction=run.data.validation_fraction)
    yield from split.documents("validation")


def _head(documents: Iterable[Document], characters: int) -> Iterator[Document]:
    """The first documents, so many characters in all; a chat is not cut."""
    for document in documents:
        if isinstance(document, TokenIds):
            return
        yield document[:characters] if isinstance(document, str) else document
        characters -= len(document if isinstance(document, str) else content_of(document))
        if characters <= 0:
            return
