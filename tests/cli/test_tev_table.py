"""The table of `spikeless tev` in a narrow terminal: numbers are whole or left out, and what is left out is said."""

import io

import pytest
import torch
from rich.console import Console

from spikeless.cli.tev import TITLES, _table
from spikeless.evaluation.tev import EmbeddingVariability


def reading(label, **fields):
    whole = dict.fromkeys(EmbeddingVariability.__dataclass_fields__, 0)
    whole |= {"label": label, "step": 12_000, "tensor": "wte.weight", "dtype": "BF16", "rows": 151_936, "width": 2048}
    whole |= {"parameters": 1_540_000_000, "tied": True, "entry": "× 45.25", "mean": 0.01957, "std": 0.00265}
    whole |= {"effective_mean": 0.8856, "effective_std": 0.0725, "notes": (), "row_stds": torch.zeros(1)}
    return EmbeddingVariability(**whole | fields)


def printed(width):
    console = Console(file=io.StringIO(), width=width)
    console.print(
        _table([reading("some/long/folder/of/a/checkpoint"), reading("b", entry="unknown: a norm", mean=1e-9)])
    )
    return console.file.getvalue()


@pytest.mark.parametrize("width", [120, 80, 60, 40, 25])
def test_no_number_is_cut(width):
    text = printed(width)
    words, said = text.split(), " ".join(text.split("left out,")[-1].split()) if "left out," in text else ""
    columns = {"mean": ["0.01957", "1e-9"], "effective_mean": ["0.8856"], "step": ["12,000"]}
    columns |= {"table": ["151936×2048"], "parameters": ["1.54B"], "std": ["0.00265"], "effective_std": ["0.0725"]}
    for key, values in columns.items():
        title = " ".join(TITLES[key].replace("-\n", "").split())
        assert all(value in words for value in values) != (title in said), key
    assert all(len(line) <= width for line in text.splitlines() if "left out" not in line)


def test_a_wide_terminal_leaves_nothing_out():
    assert "left out" not in printed(120)
    assert "left out, since they do not fit into 60 columns: parameters" in " ".join(printed(60).split())
