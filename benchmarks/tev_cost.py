"""What `spikeless tev` costs on a folder laid out like a sharded 70B checkpoint.

Its embedding, 128,256 x 8192 in bf16, is random numbers (2.1 GB); the other 139 GB are holes in sparse files. Against
reading those bytes into buffers of the same size and summing the numbers in fp32, by threads in the same way, and, for
what most would write, in a plain loop. One run, interleaved, medians:
`python benchmarks/tev_cost.py [ROWS]` (half a minute on two cores; 2.1 GB of disk, 5 GB of page cache).
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from spikeless.evaluation.tev import EmbeddingVariability, find_sources, measure
from spikeless.evaluation.tev.measure import PART_BYTES
from spikeless.weights import Weights, open_weights
from spikeless.weights.reader import BUFFER_BYTES

ROWS, WIDTH, FEED_FORWARD, KEYS, LAYERS = 128_256, 8192, 28_672, 1024, 80
SHARDS, REPEATS, ROWS_AT_ONCE = 30, 7, 4096
TIME_TARGET, MEMORY_TARGET = 1.5, 200e6
TEV, REFERENCE, PLAIN = "TEV", "read and sum, each thread apart", "read and sum, in a plain loop"
TABLE = "model.embed_tokens.weight"


def layout(rows: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of Llama 3 70B."""
    yield TABLE, (rows, WIDTH)
    for layer in range(LAYERS):
        place = f"model.layers.{layer}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{place}.{name}.weight", (WIDTH,)
        for name, out in (("q", WIDTH), ("k", KEYS), ("v", KEYS), ("o", WIDTH)):
            yield f"{place}.self_attn.{name}_proj.weight", (out, WIDTH)
        for name in ("gate", "up"):
            yield f"{place}.mlp.{name}_proj.weight", (FEED_FORWARD, WIDTH)
        yield f"{place}.mlp.down_proj.weight", (WIDTH, FEED_FORWARD)
    yield "model.norm.weight", (WIDTH,)
    yield "lm_head.weight", (rows, WIDTH)


def write_checkpoint(folder: Path, rows: int) -> None:
    """The folder, and `expected.json` with the embedding's TEV, brute force in float64."""
    tensors = list(layout(rows))
    per_shard = -(-len(tensors) // SHARDS)
    weight_map = {}
    for shard in range(SHARDS):
        name = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        header, offset = {}, 0
        for tensor, shape in tensors[shard * per_shard : (shard + 1) * per_shard]:
            size = 2 * torch.Size(shape).numel()
            header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
            offset += size
            weight_map[tensor] = name
        raw = json.dumps(header).encode()
        with (folder / name).open("wb") as file:
            file.write(len(raw).to_bytes(8, "little") + raw)
            if TABLE in header:
                write_table(file, folder, rows)
            file.truncate(8 + len(raw) + offset)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": rows}))


def write_table(file, folder: Path, rows: int) -> None:  # type: ignore[no-untyped-def]
    """Random rows of different spread and mean, in chunks."""
    torch.manual_seed(0)
    stds = []
    for start in range(0, rows, ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, rows - start)
        table = torch.randn(count, WIDTH) * (0.005 + 0.03 * torch.rand(count, 1)) + 0.01 * torch.randn(count, 1)
        table = table.bfloat16()
        stds.append(table.double().std(1, correction=0))
        file.write(table.view(torch.uint8).numpy().data)
    every = torch.cat(stds)
    expected = {"mean": float(every.mean()), "std": float(every.std(correction=0))}
    (folder / "expected.json").write_text(json.dumps(expected))


def read_and_sum(weights: Weights, first: int = 0, last: int | None = None) -> float:
    """Every number of some rows, read, converted to fp32 in a reused buffer, and summed."""
    total, buffer = 0.0, torch.empty(BUFFER_BYTES // (2 * WIDTH), WIDTH)
    for chunk in weights.rows(TABLE, first=first, last=last):
        total += float(buffer[: len(chunk)].copy_(chunk).sum())
    return total


def read_and_sum_apart(weights: Weights, rows: int) -> float:
    """The same, each thread with rows of its own."""
    threads, at_once = torch.get_num_threads(), PART_BYTES // (2 * WIDTH)
    torch.set_num_threads(1)
    with ThreadPoolExecutor(threads) as pool:
        sums = pool.map(lambda first: read_and_sum(weights, first, first + at_once), range(0, rows, at_once))
        total = sum(sums)
    torch.set_num_threads(threads)
    return total


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def resident(field: str) -> float:
    """A figure of this process's memory [bytes]: VmRSS, or VmHWM, its peak since `reset_peak`."""
    status = Path("/proc/self/status").read_text()
    return 1024.0 * int(re.search(rf"{field}:\s+(\d+)", status)[1])  # type: ignore[index]


def reset_peak() -> None:
    """Let VmHWM begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def main(rows: int = ROWS) -> None:
    """Measure and print the table."""
    imported = resident("VmRSS")
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        subprocess.run([sys.executable, __file__, "--write", name, str(rows)], check=True)
        expected = json.loads((folder / "expected.json").read_text())
        found: EmbeddingVariability = measure(find_sources(name)[0])  # also warms the page cache
        weights = open_weights(folder)
        times: dict[str, list[float]] = {TEV: [], REFERENCE: [], PLAIN: []}
        reset_peak()
        for _ in range(REPEATS):
            times[TEV].append(seconds(lambda: measure(find_sources(name)[0])))
            times[REFERENCE].append(seconds(lambda: read_and_sum_apart(weights, rows)))
            times[PLAIN].append(seconds(lambda: read_and_sum(weights)))
        memory = resident("VmHWM") - imported
    medians = {what: statistics.median(each) for what, each in times.items()}
    ratio = medians[TEV] / medians[REFERENCE]
    gigabytes = rows * WIDTH * 2 / 1e9
    table = Table("", "median [s]", "GB/s", title=f"{rows:,} x {WIDTH} in bf16, {torch.get_num_threads()} threads")
    for what, median in medians.items():
        table.add_row(what, f"{median:.3f}", f"{gigabytes / median:.2f}")
    Console().print(table)
    pairs = sorted(ours / theirs for ours, theirs in zip(times[TEV], times[REFERENCE], strict=True))
    error = max(abs(found.mean / expected["mean"] - 1), abs(found.std / expected["std"] - 1))  # type: ignore[operator]
    print(f"parameters by the headers: {found.parameters:,}")
    spread = f"pairs {pairs[0]:.2f} to {pairs[-1]:.2f}"
    print(f"ratio {ratio:.2f} ({spread}), at most {TIME_TARGET}: {met(ratio <= TIME_TARGET)}")
    print(f"peak memory above the imports {memory / 1e6:.0f} MB, under 200: {met(memory < MEMORY_TARGET)}")
    print(f"relative difference to float64 {error:.1e}, at most 1e-6: {met(error <= 1e-6)}")


def met(target: bool) -> str:
    """Whether a target is met."""
    return "yes" if target else "NO"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write_checkpoint(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main(*map(int, sys.argv[1:]))
