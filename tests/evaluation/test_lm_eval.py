"""An exported model in lm-eval, offline, with the task files of docs/: its numbers are those of `spikeless eval`."""

import json
import random
from pathlib import Path

import pytest
import torch

from spikeless.config import replace_at
from spikeless.evaluation import evaluate_lambada, evaluate_perplexity, load_subject, read_lambada
from spikeless.training.export import export
from spikeless.training.loop import train

TASKS = Path(__file__).parents[2] / "docs" / "lm_eval"
SENTENCES = (
    "the captain of the little harbour looked at the sea and at the lighthouse",
    "the keeper of the old lighthouse looked at the harbour and saw the captain",
    "naïve travellers — 日本語 🙂 — came back to the harbour with the keeper",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lm_eval():
    reason = "lm-eval is not installed: pip install 'spikeless[lm-eval]'"
    return pytest.importorskip("lm_eval", reason=reason)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def exported(request, tmp_path_factory, tiny_run):
    """A model that has learnt a few sentences, so that some last words are right and some are not."""
    folder = tmp_path_factory.mktemp("exported")
    text = " ".join(random.Random(0).choices(SENTENCES, k=400))
    (folder / "corpus").mkdir()
    for number in range(20):
        (folder / "corpus" / f"{number}.txt").write_text(text[number * 1000 : (number + 1) * 1000], encoding="utf-8")
    changes = {
        "model.vocab_size": None,
        "data.spec": f"text:{folder}/corpus/*.txt",
        "data.tokenizer": "bpe:300",
        "data.batch_size": 8,
        "steps": 60,
        "optim.lr": 1e-2,
        "precision": "fp32",
        "metrics.loggers": (),
    }
    train(replace_at(tiny_run(request.param, "scaled_embed", "mlra"), changes), folder / "run")
    export(folder / "run", folder / "out")
    return folder


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """The files that the tasks name, where the user stands; some passages are longer than the context of 32 tokens."""
    passages = [
        f"{first} {' '.join(second.split()[:length])}"
        for first in SENTENCES
        for second in SENTENCES
        for length in (3, 7, 9, 13)
    ]
    passages += ["harbour keeper", " captain", "the  spaces"]
    documents = [*SENTENCES, " ".join(SENTENCES * 3), "a", "  two  spaces\n\ttab\n"]
    for name, texts in (("lambada", passages), ("documents", documents)):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return documents


def test_lm_eval_and_spikeless_eval_agree(lm_eval, exported, desk):
    theirs = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(exported / "out"), "dtype": "float32"},
        tasks=["local_lambada", "local_text"],
        task_manager=lm_eval.tasks.TaskManager(include_path=str(TASKS), include_defaults=False),
        device="cpu",
        batch_size=4,
        bootstrap_iters=0,
    )["results"]
    for folder in ("out", "run"):
        subject = load_subject(exported / folder, device=torch.device("cpu"))
        text = evaluate_perplexity(subject, desk)
        words = evaluate_lambada(subject, read_lambada(Path("lambada.jsonl")))
        assert text.bits_per_byte == pytest.approx(theirs["local_text"]["bits_per_byte,none"], rel=1e-6)
        assert words.perplexity == pytest.approx(theirs["local_lambada"]["perplexity,none"], rel=1e-5)
        assert words.accuracy == theirs["local_lambada"]["acc,none"]
        assert 0.1 < words.accuracy < 0.9
        assert words.truncated
