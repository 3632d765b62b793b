"""`spikeless report` of what `spikeless compare` wrote."""

import json

import pytest

from spikeless.experiments.analysis.comparison import About, Comparison
from spikeless.experiments.analysis.outcome import Outcome


@pytest.fixture
def grid(tmp_path):
    """A folder with the numbers of a comparison, and nothing else."""
    about = {"recipe": "deep_nano", "data": "text:a.txt", "tokenizer": "bytes", "vocab_size": 257, "steps": 3}
    outcomes = [
        Outcome(arm=arm, lr=lr, depth=2, width=8, seed=0, run=f"{arm}{lr}", state="finished", final_val_loss=loss)
        for arm, lr, loss in (("baseline", 0.1, 3.0), ("baseline", 1.0, 3.5), ("mlra", 0.1, 2.5), ("mlra", 1.0, 2.0))
    ]
    comparison = Comparison(about=About(**about, tokens_per_step=8, precision="fp32"), outcomes=tuple(outcomes))
    folder = tmp_path / "grid"
    folder.mkdir()
    comparison.write(folder / "comparison.json", {"derived": {}})
    return folder


@pytest.mark.parametrize("given", ["", "/comparison.json"])
def test_the_numbers_alone_give_the_page_again(given, grid, spikeless):
    done = spikeless(f"report {grid}{given}")
    assert done.code == 0
    assert "2 arms × 2 learning rates × 1 seed on deep_nano: 4 runs of 3 steps, none failed" in done.out
    assert f"report: {grid / 'report.html'}" in done.out
    assert "mlra: the best learning rate 1 is the grid&#39;s largest" in (grid / "report.html").read_text()


def test_the_page_goes_where_it_is_wanted(grid, tmp_path, spikeless):
    assert spikeless(f"report {grid} --out {tmp_path / 'new' / 'page.html'}").code == 0
    assert (tmp_path / "new" / "page.html").read_text().startswith("<!")
    assert not (grid / "report.html").exists()


def test_damaged_or_missing_numbers_are_said_to_be_so(grid, spikeless):
    missing = spikeless(f"report {grid / 'other.json'}")
    assert (missing.code, "cannot read" in missing.err) == (2, True)
    (grid / "comparison.json").write_text(json.dumps({"format": 1, "about": {}, "runs": []}))
    damaged = spikeless(f"report {grid}")
    assert (damaged.code, "damaged" in damaged.err) == (2, True)
