"""LAMBADA against an independent reading of lm-eval's definition, and the lines of its file."""

import json
import math

import pytest

from spikeless.data import Reading
from spikeless.data.tokenizers._fast import FastTokenizer
from spikeless.errors import UserError
from spikeless.evaluation import LambadaExample, evaluate_lambada, read_lambada

PASSAGES = [
    "the cat sat on the mat, a cat, a hat; the",
    "a mat a cat",
    "naïve 🙂 and old cat",
    "the  cat",
    " cat",
    "the cat sat on the mat, a cat, a hat; the cat sat on the mat naïve",
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "lambada.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in PASSAGES))
    return path


def of_lm_eval(subject, text, length):
    """lm-eval 0.4.13: `lambada_openai.yaml`, `_encode_pair` and `_loglikelihood_tokens`, written anew; one passage."""
    encode, scorer = subject.tokenizer.encode, subject.scorer
    context, continuation = " ".join(text.split(" ")[:-1]), " " + text.split(" ")[-1]
    if not context:
        start, wanted = list(subject.prefix), encode(continuation)
    else:
        spaces = len(context) - len(context.rstrip())
        if spaces:
            context, continuation = context[:-spaces], context[-spaces:] + continuation
        start = encode(context)
        wanted = encode(context + continuation)[len(start) :]
    inputs = (start + wanted)[-(length + 1) :][:-1]
    rows = [scorer.logits(token, place).log_softmax(0) for place, token in enumerate(inputs)][-len(wanted) :]
    total = sum(row[token].item() for row, token in zip(rows, wanted, strict=True))
    return total, all(int(row.argmax()) == token for row, token in zip(rows, wanted, strict=True))


@pytest.fixture
def helpful_subject(table_subject):
    """A model that finds " cat" likely everywhere."""
    subject = table_subject(context_length=16)
    subject.scorer.table[:, subject.tokenizer.encode(" cat")] = 20
    return subject


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_it_is_as_lm_eval_defines_it(batch_size, file, helpful_subject):
    found = evaluate_lambada(helpful_subject, read_lambada(file), batch_size=batch_size)
    expected = [of_lm_eval(helpful_subject, text, 16) for text in PASSAGES]
    right = [greedy for _, greedy in expected]
    assert 0 < sum(right) < len(right)
    assert found.examples == len(PASSAGES)
    assert found.accuracy == pytest.approx(sum(right) / len(right), rel=1e-12)
    assert found.perplexity == pytest.approx(math.exp(-sum(total for total, _ in expected) / len(expected)), rel=1e-9)
    variance = sum((greedy - found.accuracy) ** 2 for greedy in right) / (len(right) - 1)
    assert found.accuracy_stderr == pytest.approx(math.sqrt(variance / len(right)), rel=1e-9)
    assert found.truncated > 0


def test_a_context_is_shortened_from_the_left(helpful_subject):
    long = LambadaExample(context=PASSAGES[0] * 3, target=" cat")
    tokens = helpful_subject.tokenizer.encode(long.context)
    (found,) = [evaluate_lambada(helpful_subject, [long], sequence_length=4)]
    target = helpful_subject.tokenizer.encode(" cat")
    seen = [*tokens, *target][-5:][:-1]
    rows = [helpful_subject.scorer.logits(token, place).log_softmax(0) for place, token in enumerate(seen)]
    total = sum(row[token].item() for row, token in zip(rows[-len(target) :], target, strict=True))
    assert found.perplexity == pytest.approx(math.exp(-total), rel=1e-9)
    assert (found.truncated, found.sequence_length, found.accuracy_stderr) == (1, 4, 0)


def test_a_prompt_of_the_tokenizer_comes_first(table_subject):
    seen = []

    class Records:
        model, context_length, vocab_size = None, 16, 400

        def __call__(self, inputs, targets):
            seen.append(inputs)
            return plain.scorer(inputs, targets)

    plain = table_subject()
    prompted = table_subject(plain.tokenizer.with_reading(Reading(beginning=plain.prefix)))
    object.__setattr__(prompted, "scorer", Records())
    evaluate_lambada(prompted, [LambadaExample(context="a", target=" mat")])
    assert seen[0][0, :2].tolist() == [*plain.prefix, *plain.tokenizer.encode("a")]


def test_both_forms_of_a_line_are_one(tmp_path, file, helpful_subject):
    halves = [text.rpartition(" ") for text in PASSAGES]
    other = tmp_path / "halves.jsonl"
    lines = [json.dumps({"context": context, "continuation": word}) for context, _, word in halves]
    lines[1] = json.dumps({"context": halves[1][0], "continuation": " " + halves[1][2]})
    other.write_text("\ufeff" + "\n\n".join(lines), encoding="utf-8")
    assert evaluate_lambada(helpful_subject, read_lambada(other)) == evaluate_lambada(
        helpful_subject, read_lambada(file)
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"not json", "line 2 is not JSON in UTF-8"),
        (b'{"text": "caf\xe9 au lait"}', "line 2 is not JSON in UTF-8"),
        (b"[" * 100_000, "line 2 is not JSON in UTF-8"),
        (b'["text"]', "line 2 is JSON, but not an object"),
        (b'{"body": "a cat"}', "line 2: the fields are 'body'; each line must be"),
        (b'{"context": "a cat"}', "line 2: the fields are 'context'; each line must be"),
        (b"{}", "line 2: the fields are none"),
        (b'{"text": 3}', "line 2: the field 'text' holds no text"),
        (b'{"text": "a \\ud800"}', "line 2: the field 'text' holds a lone surrogate"),
        (b'{"text": "cat"}', "line 2: the text must end with a space and a last word"),
        (b'{"text": "a cat "}', "line 2: the text must end with a space and a last word"),
        (b'{"text": "a \\n"}', "line 2: the text must end with a space and a last word"),
        (b'{"text": ""}', "line 2: the text must end with a space and a last word"),
        (b'{"context": "a", "continuation": " "}', "line 2: the text must end with a space and a last word"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_bad_line_is_named(line, message, tmp_path):
    path = tmp_path / "lambada.jsonl"
    path.write_bytes(b'{"text": "a cat"}\n' + line + b"\n")
    with pytest.raises(UserError, match=f"lambada.jsonl, {message}"):
        list(read_lambada(path))


def test_a_missing_file_and_an_empty_one_are_said(tmp_path, table_subject):
    with pytest.raises(UserError, match=r"cannot read .*nowhere"):
        list(read_lambada(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="LAMBADA has no example"):
        evaluate_lambada(table_subject(), [])


def test_a_word_longer_than_the_window_is_named(table_subject):
    example = LambadaExample(context="a", target=" incomprehensibilities", where="f, line 3")
    with pytest.raises(UserError, match=r"f, line 3: the last word has \d+ tokens; the model sees 2 at once"):
        evaluate_lambada(table_subject(), [example], sequence_length=2)


def test_a_word_without_a_token_of_its_own_is_named(table_subject):
    """A tokenizer that knows whole passages."""
    import tokenizers

    whole = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "a cat": 1, "<|endoftext|>": 2}, unk_token="a"))
    subject = table_subject(tokenizer=FastTokenizer(whole.to_str(), "whole"))
    with pytest.raises(UserError, match="f, line 1: the tokenizer gives the last word ' cat' no token of its own"):
        evaluate_lambada(subject, [LambadaExample(context="a", target=" cat", where="f, line 1")])
