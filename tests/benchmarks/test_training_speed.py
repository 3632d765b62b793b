"""Who is measured, and what a round is; never how long it takes."""

import pytest

MODEL = """
from dataclasses import dataclass
import torch

@dataclass
class GPTConfig:
    block_size: int = 1024
    vocab_size: int = 50304
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    bias: bool = True

class GPT(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        print("number of parameters")
        self.table = torch.nn.Embedding(config.vocab_size, config.n_embd)
        self.seen = []

    def forward(self, idx, targets=None):
        self.seen.append((idx, targets))
        logits = self.table(idx) @ self.table.weight.T
        return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
"""


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path


def test_every_side_does_as_many_steps_as_we_do(script, checkout, monkeypatch, capsys):
    speed, peers = script("training_speed"), script("peers")
    monkeypatch.setattr(speed, "DATA", "pydocs:json")
    monkeypatch.setattr(speed, "STEPS_A_ROUND", 2)
    case = peers.Case(layers=1, width=16, heads=2, vocabulary=300, batch=2, length=8, rounds=3)
    made = []

    def kept(build):
        return lambda case: made.append(build(case)) or made[-1]

    sides = {name: kept(build) for name, build in peers.peers_of(checkout).items()}
    seconds = speed.seconds_of(case, "fp32", sides)
    assert {side: len(rounds) for side, rounds in seconds.items()} == {"spikeless": 3, "transformers": 3, "nanoGPT": 3}
    theirs = made[1].model
    assert len(theirs.seen) == 2 * (3 + 1)  # the first round warms up
    assert all((targets[:, :-1] == idx[:, 1:]).all() for idx, targets in theirs.seen)
    assert capsys.readouterr().out == ""


def test_without_a_checkout_nanogpt_is_left_out(script):
    assert list(script("peers").peers_of(None)) == ["transformers"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (None, "No such file"),
        ("def (", "invalid syntax"),
        ("raise RuntimeError('was run')\nclass GPT: ...", "no class GPTConfig"),
        (
            "raise RuntimeError('was run')\nclass GPT: ...\nclass GPTConfig:\n    bias: bool",
            "no field block_size, dropout",
        ),
        (f"import a_package_that_nobody_has\n{MODEL}", "cannot be imported: No module named"),
    ],
    ids=["no file", "no Python", "another class", "other fields", "an import that fails"],
)
def test_another_folder_is_refused_in_one_line(script, tmp_path, source, reason):
    if source is not None:
        (tmp_path / "model.py").write_text(source)
    with pytest.raises(SystemExit) as refused:
        script("training_speed").main(["--nanogpt", str(tmp_path)])
    assert reason in str(refused.value) and "\n" not in str(refused.value)
