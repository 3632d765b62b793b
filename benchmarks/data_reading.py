"""What reading a batch costs, as a share of the step that trains on it; of one source, and of a mixture of two.

    python benchmarks/data_reading.py [RECIPE …]      (deep_nano and gpt2_nano by default; half a minute)

A step is timed without its optimizer, so the share is an upper bound. Data are a hundred million random ids on disk,
mapped into memory; batches come in their shuffled order, after the pages were read once.
"""

import statistics
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from spikeless.config import find, replace_at
from spikeless.data import Mixture, Sampler, Tokens
from spikeless.training.build import build_model
from spikeless.training.objective import Objective, time_pass

TOKENS, TARGET = 100_000_000, 0.01


def main(recipes: list[str]) -> None:
    """Measure and print the table."""
    table = Table("recipe", "data", "reading [ms]", "step [ms]", f"share (aim {TARGET:.0%})")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ids.bin"
        np.random.default_rng(0).integers(0, 2048, TOKENS, dtype=np.uint16).tofile(path)
        tokens = Tokens([np.memmap(path, dtype=np.uint16, mode="r")])
        mixture = Mixture([tokens, tokens], [Fraction(7, 10), Fraction(3, 10)])
        for recipe in recipes or ["deep_nano", "gpt2_nano"]:
            run = find("recipes", recipe)()
            run = replace_at(run, {"model.vocab_size": run.model.vocab_size or 2048})
            model, device = build_model(run, "cpu"), torch.device("cpu")
            objective = Objective(model, run.loss, device, "fp32")
            for name, source in (("one source", tokens), ("mixture", mixture)):
                sampler, times = Sampler(source, run.data.sequence_length, seed=0), []
                for step in range(220):
                    started = time.perf_counter()
                    batch = sampler.batch(step, run.data.batch_size)
                    times.append(time.perf_counter() - started)
                reading = statistics.median(times[20:])
                step_time = time_pass(objective, model, batch)
                table.add_row(
                    recipe, name, f"{reading * 1e3:.2f}", f"{step_time * 1e3:.0f}", f"{reading / step_time:.2%}"
                )
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
