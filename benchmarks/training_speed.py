"""Tokens a second and peak memory against two peers in a bare PyTorch loop.

    python benchmarks/training_speed.py [CASE …] [--nanogpt DIR] [--precision fp32] [--json FILE]

The peers are GPT2LMHeadModel of transformers and, if DIR is a checkout of nanoGPT, its model.py. Ours is `spikeless
train` from one row of metrics.jsonl to another: a batch from the token shards, forward, backward, clipping, fused
AdamW, the default diagnostics at one step of ten, rows for metrics.jsonl and TensorBoard. Evaluations and checkpoints
are not in it, since none falls into these steps. A step of a peer is forward, backward, clipping and the same fused
AdamW on one batch in memory, and reading the loss. All have weights of the same shapes, no dropout, and the same batch
and precision: bf16 is autocast, measured only where the processor has instructions for it. Rounds of ten steps are
interleaved in one process; the first one warms up. Memory is the peak of a process of its own, above what it held
before the model was made.

About thirty minutes on two quiet cores.
"""

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers
from peers import BYTES, NANOGPT, Case, Peer, bare_step, peers_of
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

OURS, DATA = "spikeless", "pydocs"
STEPS_A_ROUND = 10
"""As many as `metrics.every`, so that each of our rounds has one reading of the diagnostics."""
CASES = {
    "12x48": Case(layers=12, width=48, heads=4, vocabulary=1024, batch=8, length=64, rounds=10),
    "6x384-8k": Case(layers=6, width=384, heads=6, vocabulary=8192, batch=8, length=256),
    "6x384-50k": Case(layers=6, width=384, heads=6, vocabulary=50_257, batch=4, length=256),
    "12x768-50k": Case(layers=12, width=768, heads=12, vocabulary=50_257, batch=2, length=512),
}


class Enough(Exception):
    """Ends a run that is only measured."""


class Turnstile:
    """A logger of our loop: after every ten of our steps each peer does ten of its own, and all are timed.

    Attributes:
        seconds: of each round by side, the one that warms up left out.
    """

    def __init__(self, peers: Mapping[str, Callable[[], None]], rounds: int) -> None:
        self.peers, self.rounds, self.rows, self.round = peers, rounds, 0, 0
        self.seconds: dict[str, list[float]] = {side: [] for side in (OURS, *peers)}
        self.started = time.perf_counter()

    def log(self, row: dict[str, float]) -> None:
        self.rows += 1
        if self.rows % STEPS_A_ROUND:
            return
        took = {OURS: time.perf_counter() - self.started}
        for side, step in self.peers.items():
            self.started = time.perf_counter()
            for _ in range(STEPS_A_ROUND):
                step()
            took[side] = time.perf_counter() - self.started
        if self.round:
            for side, seconds in took.items():
                self.seconds[side].append(seconds)
        if self.round == self.rounds:
            raise Enough
        self.round += 1
        self.started = time.perf_counter()

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is open."""


def train_ours(case: Case, precision: str, turnstile: Turnstile) -> None:
    """Our loop as a user has it, until the turnstile has seen enough."""
    model = GPT2.config(
        num_layers=case.layers,
        width=case.width,
        num_heads=case.heads,
        vocab_size=case.vocabulary,
        context_length=case.length,
    )
    run = replace_at(
        find("recipes", "gpt2_124m")(),
        {
            "model": model,
            "precision": precision,
            "device": "cpu",
            "data.spec": DATA,
            "data.tokenizer": "bytes",
            "data.batch_size": case.batch,
            "data.sequence_length": case.length,
            "data.micro_batches": 1,
            "evaluation.every": 0,
            "evaluation.tokens": case.length,
        },
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Enough):
        train(run, folder, loggers=[turnstile])


def seconds_of(case: Case, precision: str, peers: Mapping[str, Callable[[Case], Peer]]) -> dict[str, list[float]]:
    """Seconds of a step on each side, a round a number."""
    steps = {side: bare_step(build(case), case, precision) for side, build in peers.items()}
    turnstile = Turnstile(steps, case.rounds)
    train_ours(case, precision, turnstile)
    return {side: [each / STEPS_A_ROUND for each in rounds] for side, rounds in turnstile.seconds.items()}


def split_of(case: Case, precision: str) -> dict[str, float]:
    """Where the time of one of our steps goes [share]; medians of three."""
    config = GPT2.config(num_layers=case.layers, width=case.width, num_heads=case.heads, vocab_size=case.vocabulary)
    model = Transformer(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    optimizer, loss_of, clip = AdamW().build(model.named_parameters()), CrossEntropy(), ClipNorm()
    tokens, laps = torch.randint(BYTES, (case.batch, case.length + 1)), []
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


def peak_of(side: str, case: Case, precision: str, peers: Mapping[str, Callable[[Case], Peer]]) -> int:
    """Peak memory of this process after a few steps, above what it held before [bytes]; it must be a fresh one."""
    before = _high_water()
    if side == OURS:
        train_ours(case, precision, Turnstile({}, 0))
    else:
        step = bare_step(peers[side](case), case, precision)
        for _ in range(3):
            step()
    return _high_water() - before


def _high_water() -> int:
    """Peak resident memory of this process [bytes]; `ru_maxrss` would begin with the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def has_bf16() -> bool:
    """True if the processor has instructions for products of bf16."""
    flags = Path("/proc/cpuinfo").read_text().split()
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))


def measure(name: str, precision: str, nanogpt: Path | None) -> dict[str, Any]:
    """One row of the results."""
    case, peers = CASES[name], peers_of(nanogpt)
    seconds, peaks = seconds_of(case, precision, peers), {}
    for side in seconds:
        command = [sys.executable, __file__, name, "--peak", side, precision]
        command += ["--nanogpt", str(nanogpt)] if nanogpt else []
        peaks[side] = int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])
    split = split_of(case, precision)
    return {**asdict(case), "precision": precision, "seconds": seconds, "peak_bytes": peaks, "split": split}


def tables_of(rows: list[dict[str, Any]]) -> tuple[Table, Table]:
    """What was measured, as tables for the terminal."""
    sides = list(rows[0]["seconds"])
    speed = Table("case", "precision", *(f"{side} [tokens/s, GB]" for side in sides), *(f"/ {s}" for s in sides[1:]))
    split = Table("case", "precision", *rows[0]["split"], title="where the time of one of our steps goes")
    for row in rows:
        case = f"{row['layers']}x{row['width']}, {row['vocabulary']:,}, {row['batch']}x{row['length']}"
        tokens, seconds = row["batch"] * row["length"], row["seconds"]
        rates = (f"{tokens / statistics.median(seconds[s]):,.0f}, {row['peak_bytes'][s] / 1e9:.2f}" for s in sides)
        ratios = (
            f"{statistics.median(b / a for a, b in zip(seconds[OURS], seconds[side], strict=True)):.2f}, "
            f"{row['peak_bytes'][OURS] / row['peak_bytes'][side]:.2f}"
            for side in sides[1:]
        )
        speed.add_row(case, row["precision"], *rates, *ratios)
        split.add_row(case, row["precision"], *(f"{share:.0%}" for share in row["split"].values()))
    return speed, split


def main(arguments: list[str]) -> None:
    """Measure, write the numbers, print the tables."""
    parser = argparse.ArgumentParser(description="Tokens a second and peak memory against two peers.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all if none is named")
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="a checkout of nanoGPT, whose model.py is run")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="only this one; both if not given")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the numbers go")
    parser.add_argument("--peak", nargs=2, metavar=("SIDE", "PRECISION"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.cases if name not in CASES]:
        parser.error(f"there is no case {unknown[0]!r}; choose of {', '.join(CASES)}")
    peers = peers_of(given.nanogpt)
    if given.peak:
        side, precision = given.peak
        print(peak_of(side, CASES[given.cases[0]], precision, peers))
        return
    if NANOGPT not in peers:
        print("nanoGPT is left out; give the folder of a checkout with --nanogpt DIR")
    if not has_bf16():
        print("bf16 is left out: this processor has no instructions for it")
    about = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_average_before": os.getloadavg()[0],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "nanogpt_model_sha256": hashlib.sha256((given.nanogpt / "model.py").read_bytes()).hexdigest()
        if given.nanogpt
        else None,
        "steps_a_round": STEPS_A_ROUND,
    }
    rows = []
    for name in given.cases or CASES:
        for precision in (given.precision,) if given.precision else ("fp32", "bf16") if has_bf16() else ("fp32",):
            rows.append(measure(name, precision, given.nanogpt))
            if given.json:
                given.json.write_text(json.dumps({**about, "results": rows}, indent=2) + "\n")
    for table in tables_of(rows):
        Console(width=160).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
