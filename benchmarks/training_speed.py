"""Tokens a second and peak memory against GPT2LMHeadModel of transformers in a bare PyTorch loop.

Ours is the whole of `spikeless train` as a user has it: reading data, clipping, diagnostics, loggers. Theirs is
forward, backward, clipping, the same fused AdamW on one batch in memory. Both have the same weights' shapes, batch and
precision (bf16 is autocast), no dropout and vocabulary 50257. Rounds of ten steps are interleaved in one process; the
memory is the peak of a process of its own above what it held before the model was made.

    python benchmarks/training_speed.py [LAYERSxWIDTH …] [--json FILE]

About half an hour on two cores for 6x384 and 12x768.
"""

import contextlib
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
import transformers
from rich.console import Console
from rich.table import Table

from spikeless.config import find, replace_at
from spikeless.losses.cross_entropy import CrossEntropy
from spikeless.models.gpt2 import GPT2
from spikeless.nn.transformer import Transformer
from spikeless.optim.adamw import AdamW
from spikeless.optim.gradients.clip_norm import ClipNorm
from spikeless.stats import global_norm
from spikeless.training.loop import train

VOCABULARY, BATCH, LENGTH = 50_257, 2, 512
STEPS_A_ROUND, ROUNDS = 10, 3
SHAPES = {"6x384": (6, 384, 6), "12x768": (12, 768, 12)}
TARGETS = {"speed": 1.1, "memory": 0.8}
ABOUT = {
    "date": date.today().isoformat(),
    "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    "torch": torch.__version__,
    "transformers": transformers.__version__,
    "batch": BATCH,
    "sequence_length": LENGTH,
    "vocabulary": VOCABULARY,
}


class Enough(Exception):
    """Ends a run that is only measured."""


class Turnstile:
    """A logger of our loop: after every ten of our steps it lets the other side do ten of its own, and times both."""

    def __init__(self, other: Callable[[], None], rounds: int) -> None:
        self.other, self.rounds, self.rows = other, rounds, 0
        self.seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        self.started = time.perf_counter()

    def log(self, row: dict[str, float]) -> None:
        self.rows += 1
        if self.rows % STEPS_A_ROUND:
            return
        middle = time.perf_counter()
        for _ in range(STEPS_A_ROUND):
            self.other()
        end = time.perf_counter()
        self.seconds["ours"].append(middle - self.started)
        self.seconds["theirs"].append(end - middle)
        if len(self.seconds["ours"]) > self.rounds:  # the first round warms up
            raise Enough
        self.started = time.perf_counter()

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is open."""


def ours(shape: tuple[int, int, int], precision: str, turnstile: Turnstile) -> None:
    """Our loop as a user has it, until the turnstile has seen enough."""
    layers, width, heads = shape
    run = replace_at(
        find("recipes", "gpt2_124m")(),
        {
            "model": GPT2.config(num_layers=layers, width=width, num_heads=heads, vocab_size=VOCABULARY),
            "precision": precision,
            "device": "cpu",
            "data.tokenizer": "bytes",
            "data.batch_size": BATCH,
            "data.sequence_length": LENGTH,
            "data.micro_batches": 1,
            "evaluation.every": 0,
            "evaluation.tokens": LENGTH,
        },
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Enough):
        train(run, folder, loggers=[turnstile])


def theirs(shape: tuple[int, int, int], precision: str) -> Callable[[], None]:
    """A function that does one step of a bare loop."""
    layers, width, heads = shape
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_layer=layers, n_embd=width, n_head=heads, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    model = transformers.GPT2LMHeadModel(config).train()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), fused=True)
    tokens = torch.randint(257, (BATCH, LENGTH))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


def time_of(shape: tuple[int, int, int], precision: str) -> dict[str, float]:
    """Median seconds of a step on either side, and the median of the rounds' ratios."""
    turnstile = Turnstile(theirs(shape, precision), ROUNDS)
    ours(shape, precision, turnstile)
    a, b = (turnstile.seconds[side][1:] for side in ("ours", "theirs"))
    return {
        "ours_seconds": statistics.median(a) / STEPS_A_ROUND,
        "theirs_seconds": statistics.median(b) / STEPS_A_ROUND,
        "speed": statistics.median(y / x for x, y in zip(a, b, strict=True)),
    }


def split_of(shape: tuple[int, int, int], precision: str) -> dict[str, float]:
    """Where the time of one of our steps goes [share]; medians of three."""
    layers, width, heads = shape
    model = Transformer(GPT2.config(num_layers=layers, width=width, num_heads=heads, vocab_size=VOCABULARY))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    optimizer, loss_of, clip = AdamW().build(model.named_parameters()), CrossEntropy(), ClipNorm()
    tokens, laps = torch.randint(257, (BATCH, LENGTH + 1)), []
    for _ in range(4):
        times = [time.perf_counter()]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            hidden = model.hidden(tokens[:, :-1])
            times.append(time.perf_counter())
            loss = loss_of(hidden, model.output_weight, tokens[:, 1:])
        times.append(time.perf_counter())
        loss.backward()
        times.append(time.perf_counter())
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        clip.apply(gradients, global_norm(gradients))
        times.append(time.perf_counter())
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter())
        laps.append([b - a for a, b in itertools.pairwise(times)])
    medians = [statistics.median(each) for each in zip(*laps[1:], strict=True)]
    names = ("blocks, forward", "head and loss, both ways", "blocks, backward", "norm and clip", "optimizer")
    return {name: median / sum(medians) for name, median in zip(names, medians, strict=True)}


def peak_of(side: str, shape: tuple[int, int, int], precision: str) -> int:
    """Peak memory of a process that does eleven steps, above what it held before [bytes]; run in a fresh process."""
    before = _high_water()
    if side == "ours":
        ours(shape, precision, Turnstile(lambda: None, 0))
    else:
        step = theirs(shape, precision)
        for _ in range(3):
            step()
    return _high_water() - before


def _high_water() -> int:
    """Peak resident memory of this process [bytes]; `ru_maxrss` would begin with the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def fresh_peak(side: str, name: str, precision: str) -> int:
    """`peak_of` in a process of its own."""
    command = [sys.executable, __file__, "--peak", side, name, precision]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main(arguments: list[str]) -> None:
    """Measure, print the table, write the numbers."""
    if arguments[:1] == ["--peak"]:
        print(peak_of(arguments[1], SHAPES[arguments[2]], arguments[3]))
        return
    out = Path(arguments[arguments.index("--json") + 1]) if "--json" in arguments else None
    results = []
    for name in [each for each in arguments if each in SHAPES] or SHAPES:
        for precision in ("fp32", "bf16"):
            peaks = {side: fresh_peak(side, name, precision) for side in ("ours", "theirs")}
            row = {"shape": name, "precision": precision, **time_of(SHAPES[name], precision)}
            row |= {f"{side}_peak_bytes": peak for side, peak in peaks.items()}
            row |= {"memory": peaks["ours"] / peaks["theirs"], "split": split_of(SHAPES[name], precision)}
            results.append(row)
            if out:
                out.write_text(json.dumps({**ABOUT, "results": results}, indent=2) + "\n")
    table = Table(
        "shape",
        "precision",
        "ours [tokens/s]",
        "theirs [tokens/s]",
        f"speed ratio (aim {TARGETS['speed']})",
        "ours [GB]",
        "theirs [GB]",
        f"memory ratio (aim {TARGETS['memory']})",
        title=f"{BATCH} x {LENGTH} tokens, vocabulary {VOCABULARY:,}, {torch.get_num_threads()} threads",
    )
    for row in results:
        table.add_row(
            row["shape"],
            row["precision"],
            f"{BATCH * LENGTH / row['ours_seconds']:,.0f}",
            f"{BATCH * LENGTH / row['theirs_seconds']:,.0f}",
            f"{row['speed']:.2f}",
            f"{row['ours_peak_bytes'] / 1e9:.2f}",
            f"{row['theirs_peak_bytes'] / 1e9:.2f}",
            f"{row['memory']:.2f}",
        )
    Console(width=140).print(table)
    split = Table("shape", "precision", *results[0]["split"], title="where the time of one of our steps goes")
    for row in results:
        split.add_row(row["shape"], row["precision"], *(f"{share:.0%}" for share in row["split"].values()))
    Console(width=140).print(split)


if __name__ == "__main__":
    main(sys.argv[1:])
