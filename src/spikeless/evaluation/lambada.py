"""LAMBADA: is the last word of a passage the one that the model finds likeliest?"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from spikeless.data.progress import track
from spikeless.errors import UserError
from spikeless.evaluation.subject import Subject
from spikeless.evaluation.windows import Window, score_windows
from spikeless.stats import perplexity
from spikeless.words import counted

__all__ = ["Lambada", "LambadaExample", "evaluate_lambada", "read_lambada"]

FIELDS = 'an object with "text", or with "context" and "continuation"'


@dataclass(frozen=True, kw_only=True)
class LambadaExample:
    """A passage without its last word, and that word with the space before it.

    Attributes:
        context: the passage; empty if there is none.
        target: the space and the word.
        where: file and line, for messages.
    """

    context: str
    target: str
    where: str = "an example"


@dataclass(frozen=True, kw_only=True)
class Lambada:
    """How well last words are predicted.

    Attributes:
        accuracy: share of the examples in which each token of the last word is the likeliest one.
        accuracy_stderr: its standard error, sqrt(accuracy (1 - accuracy) / (n - 1)); 0 for one example.
        perplexity: exp of the mean over examples of -log p of the whole word; infinite where fp64 cannot hold it.
        examples: [examples].
        tokens: of last words [tokens].
        sequence_length: most tokens that the model saw at once [tokens].
        truncated: contexts that lost their beginning because they were longer [examples].
    """

    accuracy: float
    accuracy_stderr: float
    perplexity: float
    examples: int
    tokens: int
    sequence_length: int
    truncated: int


def evaluate_lambada(
    subject: Subject,
    examples: Iterable[LambadaExample],
    *,
    batch_size: int = 8,
    sequence_length: int | None = None,
) -> Lambada:
    """Accuracy and perplexity of last words, as lm-eval's task `lambada_openai` defines them.

    Context and word are encoded together, and split after as many tokens as the context has by itself. A context
    without text is what documents begin with. What is too long loses its beginning.

    Args:
        subject: the model and its tokenizer.
        examples: see `read_lambada`.
        batch_size: examples computed at once [examples].
        sequence_length: most tokens to see at once; the model's context length if None.

    Raises:
        UserError: an option is out of range, there is no example, or a word has no tokens or too many.
        UnhealthyRun: the model computes non-finite numbers.
    """
    length = subject.window_length(sequence_length)
    windows, truncated = [], 0
    for example in examples:
        context, target = _encode(subject, example)
        if len(target) > length:
            raise UserError(
                f"{example.where}: the last word has {counted(len(target), 'token')}; the model sees {length} at once"
            )
        tokens = [*context, *target]
        truncated += len(tokens) > length + 1
        windows.append(Window(tokens=tokens[-(length + 1) :], scored=len(target)))
    if not windows:
        raise UserError("there is nothing to evaluate: LAMBADA has no example")
    scores = list(track(score_windows(subject.scorer, windows, batch_size), "LAMBADA", len(windows)))
    accuracy = fmean(score.greedy for score in scores)
    return Lambada(
        accuracy=accuracy,
        accuracy_stderr=math.sqrt(accuracy * (1 - accuracy) / max(len(scores) - 1, 1)),
        perplexity=perplexity(-fmean(score.log_probability for score in scores)),
        examples=len(scores),
        tokens=sum(window.scored for window in windows),
        sequence_length=length,
        truncated=truncated,
    )


def read_lambada(path: Path) -> Iterator[LambadaExample]:
    """The examples in a file of JSON lines: objects with "text", or with "context" and "continuation".

    The last word of "text" is what follows its last space. Blank lines are passed over.

    Raises:
        UserError: the file cannot be read, or a line is no such object; file and line are named.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _example(line, f"{path}, line {number}")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def _example(line: bytes, where: str) -> LambadaExample:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON in UTF-8 ({error}); each line must be {FIELDS}") from None
    if not isinstance(record, dict):
        raise UserError(f"{where} is JSON, but not an object; each line must be {FIELDS}")
    if "text" in record:
        context, space, word = _text(record, "text", where).rpartition(" ")
    elif "context" in record and "continuation" in record:
        context, space, word = (
            _text(record, "context", where),
            " ",
            _text(record, "continuation", where).removeprefix(" "),
        )
    else:
        named = ", ".join(map(repr, record)) or "none"
        raise UserError(f"{where}: the fields are {named}; each line must be {FIELDS}")
    if not space or not word or word.isspace():
        raise UserError(f"{where}: the text must end with a space and a last word, and no white space after it")
    return LambadaExample(context=context, target=space + word, where=where)


def _text(record: dict[str, object], field: str, where: str) -> str:
    value = record[field]
    if not isinstance(value, str):
        raise UserError(f"{where}: the field {field!r} holds no text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{where}: the field {field!r} holds a lone surrogate, which is no text") from None
    return value


def _encode(subject: Subject, example: LambadaExample) -> tuple[Sequence[int], Sequence[int]]:
    """Tokens of context and target; white space at the end of the context counts to the target."""
    context = example.context.rstrip()
    target = example.context[len(context) :] + example.target
    encode = subject.encode
    if not context:
        return subject.prefix, encode(target)
    own = encode(context)
    tokens = encode(context + target)[len(own) :]
    if not tokens:
        raise UserError(f"{example.where}: the tokenizer gives the last word {example.target!r} no token of its own")
    return [*subject.tokenizer.reading.beginning, *own], tokens
