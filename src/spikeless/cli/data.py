"""`spikeless data prepare` and `spikeless data inspect`."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spikeless.cli._options import JSONFile, Tokenizer, write_or_print
from spikeless.config import to_dict
from spikeless.data.documents import tally_text
from spikeless.data.inspection import Inspection, PartInspection, TokenCount, inspect_shards
from spikeless.data.prepare import prepare_folder, prepared_folders
from spikeless.data.shards import Manifest, ShardedPart
from spikeless.data.split import VALIDATION_FRACTION
from spikeless.errors import UserError
from spikeless.run import DataConfig
from spikeless.words import counted

__all__ = ["data"]

data = typer.Typer(help="Prepare and inspect token shards.", no_args_is_help=True)


@data.command("prepare")
def prepare(
    spec: Annotated[str, typer.Argument(help="The corpus, as for `train --data`.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to make; `--data shards:FOLDER` reads it.")],
    tokenizer: Tokenizer = None,
    validation_fraction: Annotated[
        float, typer.Option("--validation-fraction", help="Share held out, where the corpus brings no split.")
    ] = VALIDATION_FRACTION,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Threads that tokenize; all cores if not given.")
    ] = None,
) -> None:
    """Tokenize a corpus once, into shards that training maps into memory; goes on where it was killed."""
    if workers is not None:
        if workers < 1:
            raise UserError(f"--workers {workers} is out of range; use a whole number from 1")
        os.environ["RAYON_NUM_THREADS"] = str(workers)  # read when `tokenizers` first encodes a batch
    wanted = tokenizer or DataConfig().tokenizer
    manifests = prepare_folder(spec, wanted, out, validation_fraction=validation_fraction)
    console = Console(highlight=False, emoji=False)
    table = Table(title=Text(f"tokenizer {wanted}"))
    table.add_column("source", overflow="fold")
    for title in ("part", "documents", "tokens", "bytes"):
        table.add_column(title, no_wrap=True, justify="left" if title == "part" else "right")
    table.add_column("skipped or repaired")
    for manifest in manifests:
        for name, part in (("train", manifest.train), ("validation", manifest.validation)):
            table.add_row(
                Text(manifest.data),
                name,
                f"{part.documents:,}",
                f"{part.tokens:,}",
                _bytes(part),
                tally_text(part.skipped),
            )
    console.print(table)
    for manifest in manifests:
        if manifest.selection:
            console.print(f"{manifest.data}: {manifest.selection}", soft_wrap=True, markup=False)
        console.print(f"{manifest.data}: {_reading(manifest)}", soft_wrap=True, markup=False)
    console.print(f"prepared: {out} (train on it with --data shards:{out})", soft_wrap=True, markup=False)


@data.command("inspect")
def inspect(
    folder: Annotated[Path, typer.Argument(help="A folder of `data prepare`.")],
    verify: Annotated[bool, typer.Option("--verify", help="Check the hash of every shard.")] = False,
    top: Annotated[int, typer.Option("--top", help="How many of the most and least frequent tokens.", min=1)] = 10,
    samples: Annotated[int, typer.Option("--samples", help="How many documents of each part.", min=0)] = 3,
    json_file: JSONFile = None,
) -> None:
    """Say what token shards hold: counts, token frequencies, document lengths, decoded samples."""
    found = [inspect_shards(each, verify=verify, top=top, samples=samples) for each in prepared_folders(folder)]
    if not write_or_print(json_file, [to_dict(each) for each in found]):
        for each in found:
            _show(each, Console(highlight=False, emoji=False), verify)


def _show(found: Inspection, console: Console, verified: bool) -> None:
    manifest = found.manifest
    about = Table.grid(padding=(0, 2))
    for name, value in (
        ("data", manifest.data),
        *([("read of it", manifest.selection)] if manifest.selection else ()),
        *([("documents are", manifest.train.kind)] if manifest.train.kind != "text" else ()),
        ("tokenizer", f"{manifest.tokenizer}, {counted(manifest.vocab_size, 'token')}"),
        ("read", _reading(manifest)),
        ("stored as", manifest.dtype),
        ("data hash", manifest.data_hash[:16] + "…"),
        ("hashes of the shards", "verified" if verified else "not looked at; --verify does"),
    ):
        about.add_row(name, Text(value))
    console.print(about)
    table = Table("quantity", *found.parts, title="counts")
    parts = found.parts.values()
    for name, values in (
        ("documents", [f"{part.documents:,}" for part in parts]),
        ("tokens, end-of-text included", [f"{part.tokens:,}" for part in parts]),
        ("bytes of text", [_bytes(part) for part in parts]),
        ("bytes per token", [f"{part.bytes / part.tokens:.3f}" if part.bytes else "" for part in parts]),
        ("skipped or repaired", [tally_text(part.skipped) for part in parts]),
        (
            "document length, min / 10 % / median / 90 % / max [tokens]",
            [" / ".join(map(str, p.lengths)) for p in parts],
        ),
    ):
        table.add_row(name, *values)
    console.print(table)
    for title, tokens in (("most frequent tokens", found.head), ("least frequent tokens that occur", found.tail)):
        console.print(_frequencies(title, tokens, manifest.train.tokens))
    such_as = Text(f", such as {', '.join(repr(each.text) for each in found.never)}" if found.never else "")
    never = f"{found.unseen:,} of {counted(manifest.vocab_size, 'token')} never occur in the training part"
    console.print(Text(never).append(such_as), soft_wrap=True)
    for name, part in found.parts.items():
        for text in part.samples:
            console.print(Text(f"{name}: ", style="bold").append(repr(text), style="default"), soft_wrap=True)


def _reading(manifest: Manifest) -> str:
    """How text was read, in words."""
    ids = " ".join(map(str, manifest.reading.beginning))
    begin = f"documents begin with id {ids}" if ids else "documents begin with no id of their own"
    spelled = manifest.train.special_tokens + manifest.validation.special_tokens
    how = {"text": "as text", "parsed": f"as ids but end-of-text ({spelled:,})", "all": f"as ids ({spelled:,})"}
    return f"{begin}; special tokens in text are read {how[manifest.reading.special_tokens]}"


def _bytes(part: ShardedPart | PartInspection) -> str:
    return "unknown" if part.documents and not part.bytes else f"{part.bytes:,}"


def _frequencies(title: str, tokens: tuple[TokenCount, ...], total: int) -> Table:
    table = Table("id", "text", "count", "share", title=title)
    for each in tokens:
        table.add_row(str(each.token), Text(repr(each.text)), f"{each.count:,}", f"{each.count / total:.3%}")
    return table
