"""Perplexity and bits per byte against brute force, and across tokenizers."""

import math

import pytest
import torch

from spikeless.errors import UserError
from spikeless.evaluation import Subject, evaluate_perplexity
from spikeless.evaluation.scorer import IGNORED, Scores, TransformerScorer

DOCUMENTS = ["the cat sat on the mat", "naïve 🙂 cat, a hat; " * 4, "x"]


def brute_force(model, tokenizer, documents, length, stride):
    """Nats of all tokens, one at a time, each from as much as its window lets it see."""
    nats, count = 0.0, 0
    for text in documents:
        tokens = [tokenizer.end_of_text, *tokenizer.encode(text)]
        for place in range(1, len(tokens)):
            window = max(0, -(-(place - length) // stride))
            last = min(length + window * stride, len(tokens) - 1)
            seen = tokens[max(0, last - length) : place]
            logits = model(torch.tensor([seen]))[0, -1]
            nats -= logits.log_softmax(-1)[tokens[place]].item()
            count += 1
    return nats, count


@pytest.mark.parametrize(("family", "length", "stride"), [("gpt2", 32, 32), ("gpt2", 16, 5), ("llama", 16, 16)])
def test_it_is_brute_force(family, length, stride, tiny_run, build, bpe_tokenizer):
    model = build(tiny_run(family, "scaled_embed", vocab_size=bpe_tokenizer.vocab_size)).double().eval()
    subject = Subject(scorer=TransformerScorer(model), tokenizer=bpe_tokenizer)
    found = evaluate_perplexity(subject, DOCUMENTS, sequence_length=length, stride=stride, batch_size=3)
    with torch.no_grad():
        nats, count = brute_force(model, bpe_tokenizer, DOCUMENTS, length, stride)
    size = sum(len(text.encode()) for text in DOCUMENTS)
    assert (found.documents, found.tokens, found.bytes) == (3, count, size)
    assert found.loss == pytest.approx(nats / count, rel=1e-9)
    assert found.perplexity == pytest.approx(math.exp(nats / count), rel=1e-9)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / size, rel=1e-9)
    assert (found.sequence_length, found.stride) == (length, stride)


class UniformOverBytes:
    """A model for which each byte of text is equally likely, whatever its tokens are."""

    context_length = 16

    def __init__(self, tokenizer):
        self.vocab_size = tokenizer.vocab_size
        self.sizes = [len(tokenizer._tokenizer.id_to_token(token)) for token in range(self.vocab_size)]

    def __call__(self, inputs, targets):
        sizes = torch.tensor(self.sizes, dtype=torch.float64)[targets.clamp(min=0)]
        return Scores(-math.log(256) * sizes * (targets != IGNORED), torch.ones_like(targets, dtype=torch.bool))


def test_bits_per_byte_do_not_depend_on_the_tokenizer(bytes_tokenizer, bpe_tokenizer):
    found = [
        evaluate_perplexity(Subject(scorer=UniformOverBytes(each), tokenizer=each), DOCUMENTS)
        for each in (bytes_tokenizer, bpe_tokenizer)
    ]
    assert [each.bits_per_byte for each in found] == [pytest.approx(8), pytest.approx(8)]
    assert found[0].loss < 0.8 * found[1].loss


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_the_batch_size_changes_nothing(batch_size, tiny_run, build, bpe_tokenizer):
    model = build(tiny_run("gpt2", vocab_size=bpe_tokenizer.vocab_size)).eval()
    subject = Subject(scorer=TransformerScorer(model), tokenizer=bpe_tokenizer)
    found = evaluate_perplexity(subject, DOCUMENTS * 5, batch_size=batch_size)
    assert found.loss == pytest.approx(evaluate_perplexity(subject, DOCUMENTS * 5, batch_size=8).loss, rel=1e-6)


def test_more_context_needs_a_smaller_stride(tiny_run, build, bpe_tokenizer):
    """A model that repeats what it saw a period before is right only where that is in sight."""
    text, period = " the cat sat" * 12, len(bpe_tokenizer.encode(" the cat sat"))

    class Repeats:
        context_length, vocab_size = 2 * period, bpe_tokenizer.vocab_size

        def __call__(self, inputs, targets):
            past = torch.nn.functional.pad(inputs, (period - 1, 0), value=-1)[:, : inputs.shape[1]]
            right = (past == targets).double()
            return Scores(torch.log(0.01 + 0.9 * right) * (targets != IGNORED), right.bool())

    subject = Subject(scorer=Repeats(), tokenizer=bpe_tokenizer)
    disjoint = evaluate_perplexity(subject, [text])
    sliding = evaluate_perplexity(subject, [text], stride=period)
    assert sliding.loss < 0.75 * disjoint.loss


def test_tokens_ends_after_a_whole_document(table_subject):
    subject = table_subject()
    sizes = [len(subject.tokenizer.encode(text)) for text in DOCUMENTS]
    found = evaluate_perplexity(subject, iter(DOCUMENTS), max_tokens=sizes[0] + 1)
    assert (found.documents, found.tokens) == (2, sizes[0] + sizes[1])
    assert evaluate_perplexity(subject, iter(DOCUMENTS), max_tokens=sizes[0]).documents == 1


def test_a_perplexity_beyond_all_numbers_is_infinite(bytes_tokenizer):
    class Sure:
        context_length, vocab_size = 8, 257

        def __call__(self, inputs, targets):
            return Scores(torch.full(inputs.shape, -1e3) * (targets != IGNORED), targets == 0)

    found = evaluate_perplexity(Subject(scorer=Sure(), tokenizer=bytes_tokenizer), ["abc"])
    assert (found.loss, found.perplexity) == (1000, math.inf)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sequence_length": 17}, "sequence length 17 is out of range; the model takes 1 to 16"),
        ({"sequence_length": 0}, "sequence length 0 is out of range"),
        ({"stride": 17}, "stride 17 is out of range; use 1 to the sequence length, 16"),
        ({"sequence_length": 4, "stride": 5}, "stride 5 is out of range"),
        ({"stride": 0}, "stride 0 is out of range"),
        ({"max_tokens": 0}, "0 tokens were asked for"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options, message, table_subject):
    with pytest.raises(UserError, match=message):
        evaluate_perplexity(table_subject(), DOCUMENTS, **options)


def test_no_documents_are_refused(table_subject):
    with pytest.raises(UserError, match="nothing to evaluate"):
        evaluate_perplexity(table_subject(), [])
