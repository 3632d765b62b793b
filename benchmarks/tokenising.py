"""How fast `spikeless data prepare` tokenizes, against the batch encoding of `tokenizers` alone; and its memory.

Ours reads documents from disk, decides for each on which side of the split it is, encodes, writes and hashes. Theirs is
one call of `encode_batch_fast` with all texts in memory, on the same cores with the same tokenizer. Rounds alternate.

    python benchmarks/tokenising.py [MEGABYTES] [--json FILE]      (32 by default; about two minutes on two cores)
    python benchmarks/tokenising.py --memory MEGABYTES             peak memory of preparing so much text
"""

import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import tokenizers
from rich.console import Console
from rich.table import Table

from spikeless.data import parse_corpus, parse_tokenizer, write_shards
from spikeless.data.split import Split

ROUNDS, VOCABULARY = 5, 16_384
TARGET = 0.9


def documents(megabytes: int) -> Iterator[str]:
    """Docstrings of the machine, again and again."""
    pieces, size = list(parse_corpus("pydocs").documents()), 0
    for number in range(10**9):
        for piece in pieces:
            text = f"{number} {piece}"
            yield text
            size += len(text.encode())
            if size > megabytes * 1_000_000:
                return


def write_corpus(folder: Path, megabytes: int) -> None:
    """Files of about a hundred documents each."""
    batch: list[str] = []
    for index, text in enumerate(documents(megabytes)):
        batch.append(text)
        if len(batch) == 100:
            (folder / f"{index:08d}.txt").write_text("\n\n".join(batch))
            batch = []
    (folder / "last.txt").write_text("\n\n".join([*batch, "the end"]))


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main(arguments: list[str]) -> None:
    """Measure and print."""
    out = Path(arguments[arguments.index("--json") + 1]) if "--json" in arguments else None
    megabytes = next((int(each) for each in arguments if each.isdigit()), 32)
    pydocs = Split(corpus=parse_corpus("pydocs"), validation_fraction=0.04)
    recipe = parse_tokenizer(f"bpe:{VOCABULARY}")
    tokenizer = recipe.build(lambda: pydocs.documents("train"), pydocs.fingerprint())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "corpus").mkdir()
        write_corpus(folder / "corpus", megabytes)
        split = Split(corpus=parse_corpus(f"text:{folder}/corpus/*.txt"), validation_fraction=0.04)

        def ours() -> None:
            write_shards(folder / "shards", split.documents, tokenizer, data="benchmark", identity="benchmark")
            shutil.rmtree(folder / "shards")

        if "--memory" in arguments:
            before, took = high_water(), seconds(ours)
            peak = high_water()
            print(
                f"{megabytes} MB of text, {took:.0f} s; peak {peak / 1e6:.0f} MB, {(peak - before) / 1e6:.0f} for this"
            )
            return
        texts = [text for part in ("train", "validation") for text in split.documents(part)]
        bare = tokenizers.Tokenizer.from_str(tokenizer._definition)
        size = sum(len(text.encode()) for text in texts) / 1e6
        rounds = [
            (seconds(ours), seconds(lambda: bare.encode_batch_fast(texts, add_special_tokens=False)))
            for _ in range(ROUNDS + 1)
        ][1:]
    mine, theirs = (statistics.median(each) for each in zip(*rounds, strict=True))
    ratio = statistics.median(b / a for a, b in rounds)
    table = Table("", "seconds", "MB/s", title=f"{size:.0f} MB of docstrings, bpe:{VOCABULARY}, {os.cpu_count()} cores")
    table.add_row("spikeless data prepare", f"{mine:.2f}", f"{size / mine:.2f}")
    table.add_row("tokenizers, encode_batch_fast", f"{theirs:.2f}", f"{size / theirs:.2f}")
    Console().print(table)
    print(f"ours / theirs: {ratio:.2f} (aim {TARGET})")
    if out:
        about = {"date": date.today().isoformat(), "machine": f"{platform.machine()}, {os.cpu_count()} cores"}
        about |= {"tokenizers": tokenizers.__version__, "megabytes": size, "vocabulary": VOCABULARY}
        figures = {"ours_seconds": mine, "theirs_seconds": theirs, "ratio": ratio}
        out.write_text(json.dumps({**about, **figures}, indent=2) + "\n")


def high_water() -> int:
    """Peak resident memory of this process [bytes]."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main(sys.argv[1:])
