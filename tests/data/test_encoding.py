import numpy as np
import pytest

from spikeless.data import Reading, encoding, parse_tokenizer
from spikeless.data.encoding import encode_documents
from spikeless.errors import UserError


def ids_of(documents, tokenizer):
    return np.concatenate([each.ids for each in encode_documents(documents, tokenizer)]).tolist()


@pytest.fixture
def bpe_tokenizer():
    words = "The cat sat on the mat. It didn't move for 1,000 years; 'twas asleep! "
    return parse_tokenizer("bpe:300").build(lambda: iter([words * 20]), "words")


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(encoding, "BATCH_BYTES", 100)
    monkeypatch.setattr(encoding, "PIECE_CHARACTERS", 100)


def test_a_long_document_is_encoded_in_pieces_to_the_same_ids(small_batches, bpe_tokenizer):
    text = "The cat sat on the mat.\nIt didn't  move for 1,000 years; 'twas\n\n\tasleep! " * 20
    document = [*bpe_tokenizer.encode(text), bpe_tokenizer.end_of_text]
    assert ids_of([text, "", text], bpe_tokenizer) == [*document, bpe_tokenizer.end_of_text, *document]
    batches = list(encode_documents([text, "short"], bpe_tokenizer))
    assert len(batches) > 10
    assert sum(each.documents for each in batches) == 2
    assert sum(each.bytes for each in batches) == len(text.encode()) + 5


def test_text_without_a_space_is_cut_all_the_same(small_batches, byte_tokenizer):
    text = "字" * 1000
    assert byte_tokenizer.decode(ids_of([text], byte_tokenizer)[:-1]) == text
    assert len(list(encode_documents([text], byte_tokenizer))) == 10


def test_an_id_outside_the_vocabulary_is_refused(byte_tokenizer):
    class Damaged:
        spec, vocab_size, end_of_text = "damaged", 300, 299
        reading, special_ids = Reading(), frozenset({299})

        def __init__(self, token):
            self.token = token

        def encode_batch(self, texts, special_tokens=None):
            return [[self.token] for _ in texts]

    for token in (300, -1):
        with pytest.raises(UserError, match=f"damaged gave the id {token}, but has 300 tokens"):
            list(encode_documents(["a"], Damaged(token)))
    assert ids_of(["a"], Damaged(298)) == [298, 299]


def test_reading_runs_ahead_by_a_few_batches_only(small_batches, byte_tokenizer):
    read = 0

    def documents():
        nonlocal read
        for _ in range(100):
            read += 1
            yield "x" * 99 + " "

    batches = encode_documents(documents(), byte_tokenizer)
    next(batches)
    assert read <= 4
    batches.close()
