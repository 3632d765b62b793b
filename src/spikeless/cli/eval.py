"""`spikeless eval`."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spikeless.cli._options import Data, Device, JSONFile, Outside, write_or_print
from spikeless.config import named_modules
from spikeless.data import parse_corpus, split_reading
from spikeless.data.documents import Document, Tally, loss_of
from spikeless.data.mixture import parse_mixture
from spikeless.data.progress import track
from spikeless.data.split import Split
from spikeless.errors import SpikelessWarning, UserError, nearest
from spikeless.evaluation import (
    Lambada,
    Perplexity,
    evaluate_lambada,
    evaluate_perplexity,
    load_subject,
    read_lambada,
)
from spikeless.files import portable
from spikeless.training.environment import resolve_device
from spikeless.words import fixed

__all__ = ["evaluate"]

_PARTS = ("validation", "train", "all")
_PRECISIONS = ("fp32", "bf16")
_PERPLEXITY_IS = "Each document by itself: every token once, the first given the token that begins documents."
_LAMBADA_IS = "As lm-eval's task lambada_openai: the whole last word, each of its tokens the likeliest."


def evaluate(
    path: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT_OR_HF_FOLDER", help="A run folder, a checkpoint, or a Hugging Face folder."),
    ],
    data: Data = None,
    part: Annotated[
        str, typer.Option("--part", help="Documents to score: validation, train, or all (a test set, say).")
    ] = "validation",
    lambada: Annotated[Path | None, typer.Option("--lambada", help="LAMBADA's passages, as JSON lines.")] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", help="A folder with a tokenizer.json, or a spec; the model's own if not."),
    ] = None,
    sequence_length: Annotated[
        int | None,
        typer.Option("--sequence-length", help="Most tokens to see at once; the context length if not given."),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option("--stride", help="Tokens scored by each later window; the sequence length if not given."),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", help="Stop after the document that reaches so many tokens.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Windows computed at once.")] = 8,
    outside: Outside = None,
    device: Device = "auto",
    precision: Annotated[str, typer.Option("--precision", help="fp32 or bf16.")] = "fp32",
    json_file: JSONFile = None,
) -> None:
    """Perplexity and bits per byte of a model on a corpus, and LAMBADA."""
    for option, value, known in (("--part", part, _PARTS), ("--precision", precision, _PRECISIONS)):
        if value not in known:
            raise UserError(f"{option} {value!r} is unknown; {nearest(value, known, option.lstrip('-'))}")
    if data is None and lambada is None:
        raise UserError("there is nothing to evaluate on; give --data SPEC, --lambada FILE, or both")
    if data is not None and len(parse_mixture(data)) > 1:
        raise UserError(f"--data {data!r} is a mixture; evaluate one source at a time, so that each has its number")
    source, special_tokens = (None, None) if data is None else split_reading(data)
    corpus = None if source is None else parse_corpus(source)
    examples = None if lambada is None else list(read_lambada(lambada))
    subject = load_subject(
        path,
        tokenizer=tokenizer,
        device=resolve_device(device or "auto"),
        bf16=precision == "bf16",
        trusted=named_modules(outside or ()),
    )
    if special_tokens:
        reading = replace(subject.tokenizer.reading, special_tokens=special_tokens)
        subject = replace(subject, tokenizer=subject.tokenizer.with_reading(reading))
    numbers: dict[str, Any] = {"model": str(path), "tokenizer": subject.tokenizer.spec, "precision": precision}
    tables = []
    if corpus is not None:
        skipped = Tally()
        split = Split(corpus=corpus, validation_fraction=subject.validation_fraction)
        found = evaluate_perplexity(
            subject,
            track(_documents(split, part, skipped), "scoring documents"),
            batch_size=batch_size,
            sequence_length=sequence_length,
            stride=stride,
            max_tokens=tokens,
        )
        if loss := loss_of(skipped, found.documents):
            warnings.warn(f"{data}: {loss}", SpikelessWarning, stacklevel=2)
        numbers["data"] = {"spec": data, "part": part, "skipped": dict(skipped), **asdict(found)}
        tables.append((_perplexity_table(found, f"{path} on {data}, {part}", skipped), _PERPLEXITY_IS))
    if examples is not None:
        words = evaluate_lambada(subject, examples, batch_size=batch_size, sequence_length=sequence_length)
        numbers["lambada"] = {"file": str(lambada), **asdict(words)}
        tables.append((_lambada_table(words, f"{path} on {lambada}"), _LAMBADA_IS))
    if write_or_print(json_file, portable(numbers)):
        return
    console = Console(highlight=False, emoji=False)
    for table, definition in tables:
        console.print(table)
        console.print(definition, style="dim")


def _documents(split: Split, part: str, skipped: Tally) -> Iterator[Document]:
    if part == "all":
        yield from split.corpus.documents(skipped)
        yield from split.corpus.validation_documents(skipped) or ()
    else:
        yield from split.documents("train" if part == "train" else "validation", skipped)


def _perplexity_table(found: Perplexity, title: str, skipped: Tally) -> Table:
    rows = {
        "bits per byte": "unknown: the data are token ids"
        if found.bits_per_byte is None
        else f"{found.bits_per_byte:.4f}",
        "loss [nats/token]": f"{found.loss:.4f}",
        "perplexity, per token": fixed(found.perplexity, 2),
        "documents": f"{found.documents:,}",
        "tokens": f"{found.tokens:,}",
        "bytes": "unknown" if found.bytes is None else f"{found.bytes:,}",
        "window, stride [tokens]": f"{found.sequence_length:,}, {found.stride:,}",
    }
    rows |= {f"skipped, {kind}": f"{count:,}" for kind, count in sorted(skipped.items())}
    return _table(rows, title)


def _lambada_table(found: Lambada, title: str) -> Table:
    rows = {
        "last-word accuracy": f"{found.accuracy:.4f} ± {found.accuracy_stderr:.4f}",
        "perplexity, per word": fixed(found.perplexity, 2),
        "examples": f"{found.examples:,}",
        "window [tokens]": f"{found.sequence_length:,}",
        "contexts truncated": f"{found.truncated:,}",
    }
    return _table(rows, title)


def _table(rows: Mapping[str, str], title: str) -> Table:
    table = Table("quantity", "value", title=escape(title), title_justify="left")
    for name, value in rows.items():
        table.add_row(escape(name), value)
    return table
