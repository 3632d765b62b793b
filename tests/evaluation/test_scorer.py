"""Both scorers say what the model's whole logits say, whatever stands to the right."""

import pytest
import torch
import transformers

from spikeless.evaluation import scorer as scoring
from spikeless.evaluation.scorer import IGNORED, ForeignScorer, TransformerScorer


def targets_with_gaps(tokens):
    targets = tokens.roll(-1, 1)
    targets[:, -1] = IGNORED
    targets[0, :4] = IGNORED
    targets[2, 5:] = IGNORED
    return targets


def check(scorer, logits, tokens):
    targets = targets_with_gaps(tokens)
    found = scorer(tokens, targets)
    scored = targets != IGNORED
    expected = logits.log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(found.log_probabilities, expected * scored, rtol=1e-12, atol=1e-12)
    assert found.greedy.equal((logits.argmax(-1) == targets) | ~scored)
    assert found.greedy[scored].any()


@pytest.fixture
def tokens():
    return torch.randint(97, (4, 12))


@pytest.fixture(autouse=True)
def _several_chunks(monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK_ROWS", 7)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_our_models(family, tiny_run, build, tokens):
    model = build(tiny_run(family, "scaled_embed")).double().eval()
    with torch.no_grad():
        logits = model(tokens)
        tokens[:, 1:] = logits.argmax(-1)[:, :-1].where(torch.rand(4, 11) < 0.3, tokens[:, 1:])
        check(TransformerScorer(model), model(tokens), tokens)


def test_models_of_transformers(tokens):
    config = transformers.GPTNeoXConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
    )
    model = transformers.GPTNeoXForCausalLM(config).double().eval()
    with torch.no_grad():
        logits = model(tokens).logits
        tokens[:, 1:] = logits.argmax(-1)[:, :-1].where(torch.rand(4, 11) < 0.3, tokens[:, 1:])
        check(ForeignScorer(model, 32), model(tokens).logits, tokens)


def test_bf16_is_near_and_its_statistics_are_fp32(tiny_run, build, tokens):
    model = build(tiny_run("gpt2", "scaled_embed")).eval()
    exact = TransformerScorer(model)(tokens, targets_with_gaps(tokens)).log_probabilities
    rounded = TransformerScorer(model, bf16=True)(tokens, targets_with_gaps(tokens)).log_probabilities
    assert rounded.dtype == torch.float32
    assert not rounded.equal(exact)
    torch.testing.assert_close(rounded, exact, atol=0.1, rtol=0)
