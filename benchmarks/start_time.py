"""From the command to the first step of the README's quick start, with and without our own cache.

    python benchmarks/start_time.py [--repeats N] [--json FILE]

`spikeless train gpt2_nano --with scaled_embed` in a fresh process, until row 1 is in metrics.jsonl; then the process is
killed. CPU-seconds are those of the process and of the workers that it has waited for. Starts with a full and with an
empty cache take turns. One start before all others fills the full cache and is not counted, so the files of Python and
torch are in the machine's memory for all that count. About three minutes on two quiet cores.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ARGUMENTS = ("train", "gpt2_nano", "--with", "scaled_embed")
AIMS = {"full": 10.0, "empty": 25.0}
"""Most wall seconds with a cache, and without one."""
LIMIT, PAUSE = 300.0, 0.02
"""When a start is given up, and how long to wait between two looks at the rows [s]."""


def start(cache: Path) -> dict[str, Any]:
    """One start: its seconds, and what the run says of its threads and precision.

    Raises:
        SystemExit: the command ended, or the limit came, before row 1.
    """
    command = [str(Path(sys.executable).with_name("spikeless")), *ARGUMENTS, "--out"]
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder) / "run", Path(folder) / "log"
        with log.open("wb") as sink:
            began = time.perf_counter()
            environment = {**os.environ, "SPIKELESS_CACHE": str(cache)}
            process = subprocess.Popen([*command, str(out)], env=environment, stdout=sink, stderr=sink)
        try:
            while not has_row_1(out):
                if process.poll() is not None or time.perf_counter() - began > LIMIT:
                    raise SystemExit(f"{' '.join(command)} wrote no row 1:\n{log.read_text(errors='replace')}")
                time.sleep(PAUSE)
            wall = time.perf_counter() - began
        finally:
            process.kill()
            used = os.wait4(process.pid, 0)[2] if process.returncode is None else None
        assert used is not None
        said = json.loads((out / "environment.json").read_text())
    chosen = {name: said[name] for name in ("threads", "precision")}
    return {"wall_seconds": wall, "cpu_seconds": used.ru_utime + used.ru_stime, **chosen}


def has_row_1(out: Path) -> bool:
    """True if the first step's row is written, to its end."""
    try:
        lines = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return False
    return any(line.endswith("\n") and json.loads(line)["step"] == 1 for line in lines)


def main(arguments: list[str]) -> None:
    """Measure, write the numbers, print the table."""
    parser = argparse.ArgumentParser(description="From the command to the first step.")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="starts of each kind (default 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the numbers go")
    given = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    starts: dict[str, list[dict[str, Any]]] = {kind: [] for kind in AIMS}
    with tempfile.TemporaryDirectory() as full:
        start(Path(full))
        for _ in range(given.repeats):
            with tempfile.TemporaryDirectory() as empty:
                starts["empty"].append(start(Path(empty)))
            starts["full"].append(start(Path(full)))
    found = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_average_before": load,
        "python": platform.python_version(),
        "torch": version("torch"),
        "command": " ".join(("spikeless", *ARGUMENTS)),
        "aims": AIMS,
        "starts": starts,
    }
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    table = Table("cache", "wall [s]", "CPU [s]", "aim, wall [s]", title=f"{found['command']}: medians and ranges")
    for kind, each in starts.items():
        table.add_row(
            kind, *(spread([one[name] for one in each]) for name in ("wall_seconds", "cpu_seconds")), f"{AIMS[kind]:g}"
        )
    Console(width=120).print(table)


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.1f} [{min(values):.1f}, {max(values):.1f}]"


if __name__ == "__main__":
    main(sys.argv[1:])
