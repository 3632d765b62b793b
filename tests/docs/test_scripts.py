"""Every Python block of the README and of docs/ runs as a script, and again as a comparison's processes read it."""

import re
import runpy
from pathlib import Path

import pytest

import spikeless
from spikeless import recipes
from spikeless.config import replace_at

ROOT = Path(__file__).parents[2]
BLOCKS = {
    f"{page.relative_to(ROOT)} {number}": code
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    for number, code in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE), start=1
    )
}


@pytest.fixture
def quick(tiny_run, tmp_path, monkeypatch, extended):
    """The recipes that the examples train take two steps on a small text, in one process."""
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text(f"document {number} speaks of ships and of the sea. " * 3)
    small = {"data.spec": "text:*.txt", "data.tokenizer": "bytes", "model.vocab_size": None, "precision": "fp32"}
    small |= {"steps": 2, "data.batch_size": 2, "evaluation.tokens": 64, "schedule.warmup_steps": 1, "device": "cpu"}
    for name in ("gpt2_nano", "deep_nano"):
        run = replace_at(tiny_run("gpt2"), small | {"recipe": name})
        monkeypatch.setattr(recipes, name, lambda run=run: run)
    compare = spikeless.compare

    def quick_compare(*arguments, lrs, **options):
        return compare(*arguments, lrs=lrs[-1:], **options | {"seeds": 1, "jobs": 1})

    monkeypatch.setattr(spikeless, "compare", quick_compare)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_is_a_script(block, quick, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(BLOCKS[block], encoding="utf-8")
    runpy.run_path(str(script), run_name="__main__")
    made = {each.parent.name for each in (tmp_path / "runs").rglob("run.json")}
    assert bool(made) == ("spikeless.train" in BLOCKS[block] or "spikeless.compare" in BLOCKS[block])
    before = set(tmp_path.rglob("*"))
    runpy.run_path(str(script), run_name="__mp_main__")  # as a process that multiprocessing starts
    assert set(tmp_path.rglob("*")) == before
