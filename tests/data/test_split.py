import random
from dataclasses import dataclass

import pytest

from spikeless.data.split import Split
from spikeless.errors import UserError


@dataclass(frozen=True)
class Listed:
    texts: tuple[str, ...]
    own: tuple[str, ...] | None = None
    usage = "listed"

    def documents(self, tally=None):
        return iter(self.texts)

    def validation_documents(self, tally=None):
        return None if self.own is None else iter(self.own)

    def fingerprint(self):
        return repr(self)


def split(texts, fraction=0.1, own=None):
    both = Split(corpus=Listed(tuple(texts), own), validation_fraction=fraction)
    return list(both.documents("train")), list(both.documents("validation"))


def test_the_parts_are_disjoint_complete_and_about_as_large_as_asked():
    texts = [f"document {number}" for number in range(5000)]
    train, validation = split(texts)
    assert sorted(train + validation) == sorted(texts)
    assert not set(train) & set(validation)
    assert 400 < len(validation) < 600
    assert train == [text for text in texts if text in set(train)]  # in the corpus's order


def test_a_document_keeps_its_side_when_others_come_or_change_places():
    texts = [f"document {number}" for number in range(1000)]
    _, validation = split(texts)
    shuffled = [*texts, *(f"new {number}" for number in range(500))]
    random.Random(0).shuffle(shuffled)
    train, more = split(shuffled)
    assert set(validation) <= set(more)
    assert not set(validation) & set(train)
    assert set(validation) <= set(split(texts, fraction=0.2)[1])


def test_equal_documents_are_on_one_side():
    train, validation = split([f"document {number % 50}" for number in range(500)])
    assert not set(train) & set(validation)


@pytest.mark.parametrize("fraction", [1e-9, 0.04, 0.5, 1 - 1e-9])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_small_corpus_has_a_document_on_each_side_in_any_order(fraction, count):
    for case in range(20):
        texts = [f"case {case}, document {number}" for number in range(count)]
        train, validation = split(texts, fraction)
        assert train and validation
        assert sorted(train + validation) == texts
        again = split(texts[::-1], fraction)
        assert sorted(again[0]) == sorted(train)


@pytest.mark.parametrize(
    ("text", "tail"),
    [
        ("word " * 200 + "\n\n" + "tail " * 30, "\n\n" + "tail " * 30),
        ("word " * 99 + "last", " word" * 9 + " last"),
        ("ab\n\n" + "word " * 99 + "last", " word" * 9 + " last"),
        ("hello world\n", " world\n"),
        ("a b", " b"),
    ],
)
def test_one_document_has_its_tail_split_off(text, tail):
    (train,), (validation,) = split([text])
    assert train + validation == text
    assert validation == tail


def test_what_cannot_be_split_is_refused():
    with pytest.raises(UserError, match=r"one document, and it has no white space.*give a second file"):
        split(["unbreakable"])
    with pytest.raises(UserError, match=r"Listed.* holds no text"):
        split([])
    for fraction in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(UserError, match=r"validation_fraction is .*between 0 and 1"):
            split(["a", "b"], fraction)


def test_validation_documents_of_the_corpus_are_kept():
    texts = [f"document {number}" for number in range(100)]
    assert split(texts, own=("mine",)) == (texts, ["mine"])


def test_the_fingerprint_knows_the_fraction_where_it_matters():
    def fingerprint(fraction, own=None):
        return Split(corpus=Listed(("a",), own), validation_fraction=fraction).fingerprint()

    assert fingerprint(0.1) != fingerprint(0.2)
    assert fingerprint(0.1, own=("b",)) == fingerprint(0.2, own=("b",))
