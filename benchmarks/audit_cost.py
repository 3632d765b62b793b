"""What `spikeless audit` costs: GPT-2's 124M shape at 2 x 512 tokens, and how the cost grows with depth.

Each audit runs in a process of its own, so that its peak memory is its own. Depth: the same shape with 4, 8 and 16
layers at 256 wide; the time beyond the parts that do not depend on depth is compared layer by layer.
`python benchmarks/audit_cost.py [JSON]` (about three minutes on two quiet cores).
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

TIME_TARGET, MEMORY_TARGET = 60.0, 4e9
DEPTHS, REPEATS = (4, 8, 16), 3
PER_LAYER = ("activations", "jacobians", "gradients", "learning rate")
AUDIT = """
import json, resource, sys, time
import spikeless
started = time.perf_counter()
report = spikeless.audit(sys.argv[1], assignments=sys.argv[2:], sequences=2, tokens=512)
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "peak": peak, "parts": dict(report.measured.seconds), "score": report.score}))
"""


def run(recipe: str, *assignments: str) -> dict[str, Any]:
    """One audit in a fresh process."""
    command = [sys.executable, "-c", AUDIT, recipe, *assignments]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])


def main() -> None:
    console = Console(highlight=False)
    whole = run("gpt2_124m")
    table = Table("part", "seconds", title="GPT-2 124M, 2 x 512 tokens", title_justify="left")
    for part, seconds in whole["parts"].items():
        table.add_row(part, f"{seconds:.1f}")
    table.add_row("all, the model's drawing included", f"{whole['seconds']:.1f} (aim {TIME_TARGET:.0f})")
    table.add_row("peak memory, the process", f"{whole['peak'] / 1e9:.2f} GB (aim {MEMORY_TARGET / 1e9:.0f})")
    console.print(table)
    depths: dict[int, dict[str, float]] = {}
    for depth in DEPTHS:
        sizes = (f"model.num_layers={depth}", "model.width=256", "model.num_heads=8", "model.vocab_size=4096")
        runs = [run("gpt2_124m", *sizes)["parts"] for _ in range(REPEATS)]
        depths[depth] = {part: min(each[part] for each in runs) for part in PER_LAYER}
    table = Table("layers", *PER_LAYER, title="256 wide [s per layer]", title_justify="left")
    for depth, parts in depths.items():
        table.add_row(str(depth), *(f"{parts[part] / depth:.3f}" for part in PER_LAYER))
    console.print(table)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps({"gpt2_124m": whole, "depths": depths}, indent=2) + "\n")


if __name__ == "__main__":
    main()
