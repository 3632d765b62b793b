"""What the diagnostics cost, against the exact gradient variance that TEV stands in for.

One run, interleaved, ratios of medians: `python benchmarks/diagnostics_cost.py [RECIPE]` (default gpt2_124m,
8 micro-batches of 1024 tokens; two to three minutes on two cores).
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from spikeless.config import find, replace_at
from spikeless.diagnostics.gradient_variance_exact import gradient_variance_exact
from spikeless.diagnostics.gradient_variance_free import gradient_variance_free
from spikeless.diagnostics.tev import tev
from spikeless.training.build import build_model
from spikeless.training.environment import resolve_device
from spikeless.training.objective import Objective
from spikeless.training.state import TrainState

MICRO_BATCHES, TOKENS = 8, 1024
TARGET = 1 / 1000


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, the device waited for."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main(recipe: str = "gpt2_124m") -> None:
    """Measure and print the table."""
    device = resolve_device("auto")
    run = find("recipes", recipe)()
    run = replace_at(run, {"model.vocab_size": run.model.vocab_size or 2048})
    length = min(TOKENS, run.model.context_length)
    model = build_model(run, device)
    objective = Objective(model, run.loss, device, "fp32")
    torch.manual_seed(0)
    tokens = [torch.randint(run.model.vocab_size, (TOKENS // length, length + 1)) for _ in range(MICRO_BATCHES)]
    closures = tuple(lambda t=t: objective(t[:, :-1], t[:, 1:]) for t in tokens)
    state = TrainState(model, run.optim.build(model.named_parameters()), device)
    state.step = 100
    for parameter in model.parameters():  # a state of Adam as after many steps
        state.optimizer.state[parameter] = {
            "exp_avg": torch.randn_like(parameter) * 1e-3,
            "exp_avg_sq": torch.rand_like(parameter) * 1e-6,
            "step": torch.tensor(100.0),
        }
    snapshot = state.snapshot(length, closures)
    cheap = {
        "TEV, all readings": lambda: tev(snapshot),
        "gradient variance, free": lambda: gradient_variance_free(snapshot),
        "E.std(1), for reference": lambda: snapshot.embedding.std(1),
    }
    times: dict[str, list[float]] = {name: [] for name in (*cheap, "gradient variance, exact")}
    for repeat in range(3):
        for name, work in cheap.items():
            times[name] += [seconds(work, device) for _ in range(5)][1:]
        if repeat < 2:
            times["gradient variance, exact"].append(seconds(lambda: gradient_variance_exact(snapshot), device))
    medians = {name: statistics.median(each) for name, each in times.items()}
    exact, every = medians["gradient variance, exact"], run.metrics.every
    table = Table(
        "diagnostic",
        "one reading [ms]",
        f"a step, every {every} [ms]",
        "share of exact",
        title=f"{recipe} on {device.type}, {torch.get_num_threads()} threads, {MICRO_BATCHES} x {TOKENS} tokens",
    )
    for name, median in medians.items():
        table.add_row(name, f"{median * 1e3:.1f}", f"{median / every * 1e3:.2f}", f"1/{exact / median:,.0f}")
    Console().print(table)
    met = medians["TEV, all readings"] < TARGET * exact
    print(f"TEV under {TARGET:g} of the exact gradient variance: {'yes' if met else 'NO'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
