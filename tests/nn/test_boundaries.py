"""Documents in one window: nothing leaks, and each is computed as if it stood alone."""

import functools
import itertools

import pytest
import torch

from spikeless.losses.cross_entropy import CrossEntropy
from spikeless.nn.boundaries import Joined, Separate, document_layout
from spikeless.training.objective import Objective

END = 96
FAMILIES = pytest.mark.parametrize("family", ["gpt2", "llama"])
TECHNIQUES = pytest.mark.parametrize("technique", [None, "mlra", "embed_norm"])


def window():
    """The end of one document, a whole one, an empty one and the beginning of another [1, 16], and their starts."""
    tokens = torch.randint(0, END, (1, 16))
    tokens[0, [4, 10, 11]] = END
    return tokens, [0, 4, 10, 11, 16]


@FAMILIES
@TECHNIQUES
def test_each_document_is_computed_as_if_it_stood_alone(family, technique, tiny_run, build):
    model = build(tiny_run(family, *filter(None, [technique]))).double()
    tokens, starts = window()
    packed = model.hidden(tokens, documents=Separate().documents(tokens, END))
    alone = [model.hidden(tokens[:, start:stop]) for start, stop in itertools.pairwise(starts)]
    torch.testing.assert_close(packed, torch.cat(alone, dim=1), rtol=0, atol=1e-10)


@FAMILIES
def test_nothing_leaks_between_documents(family, tiny_run, build):
    """By gradients of the embedded tokens: exactly 0 outside a token's own document."""
    model = build(tiny_run(family)).double()
    tokens, starts = window()
    documents = Separate().documents(tokens, END)
    embedded = []
    model.embedding.register_forward_hook(lambda _, __, out: embedded.append(out) or out.retain_grad())
    for start, stop in itertools.pairwise(starts):
        model.hidden(tokens, documents=documents)[0, start:stop].square().sum().backward()
        influence = embedded[-1].grad[0].abs().amax(dim=1)
        assert (influence[start:stop] > 0).all()
        assert (influence[:start] == 0).all()
        assert (influence[stop:] == 0).all()
    joined = model.hidden(tokens)
    joined[0, starts[2] :].square().sum().backward()
    assert (embedded[-1].grad[0].abs().amax(dim=1) > 0).all(), "the check above would see a leak"


def test_positions_begin_anew_and_the_mask_is_causal_within_a_document():
    positions, mask = document_layout(torch.tensor([[0, 0, 1, 1, 1], [3, 4, 4, 4, 9]]))
    assert positions.tolist() == [[0, 1, 0, 1, 2], [0, 0, 1, 2, 0]]
    assert mask.shape == (2, 1, 5, 5)
    expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 1]]
    assert mask[0, 0].int().tolist() == expected


def test_a_window_without_a_boundary_is_computed_as_before(tiny_run, build):
    model, tokens = build(tiny_run("gpt2")).double(), torch.randint(0, END, (2, 16))
    separate = model.hidden(tokens, documents=Separate().documents(tokens, END))
    torch.testing.assert_close(separate, model.hidden(tokens), rtol=0, atol=1e-12)
    assert Joined().documents(tokens, END) is None


E = 9  # end-of-text


@pytest.mark.parametrize(
    ("beginning", "tokens", "documents"),
    [
        ((), [5, E, 7, 5, E, 7, 5], [0, 1, 1, 1, 2, 2, 2]),
        ((7,), [5, E, 7, 5, E, 7, 5, E], [0, 0, 1, 1, 1, 2, 2, 3]),
        ((7,), [5, E, 1, 2, 7, E, 3], [0, 1, 1, 1, 1, 2, 2]),  # token ids, or a chat, without it; it is content too
        ((7,), [5, E, 7, 5, E, 3, E, 7, 1], [0, 0, 1, 1, 2, 2, 2, 3, 3]),  # some have it
        ((7, 8), [5, E, 7, 8, 1, E, 7, 1, E, 7], [0, 0, 1, 1, 1, 2, 2, 2, 2, 3]),  # both, one alone, cut short
        ((E,), [E, 1, 2, E, E, 3, 4, E, E], [0, 0, 0, 0, 1, 1, 1, 1, 2]),  # the same token ends and begins
        ((E,), [1, E, 3, 4, E, E, 5], [0, 1, 1, 1, 1, 2, 2]),  # some without
        ((E,), [E, E, 1, E, E, E, E, 2], [0, 1, 1, 1, 2, 3, 4, 4]),  # empty documents
        ((E, 7), [1, E, E, 7, 2, E, 3], [0, 0, 1, 1, 1, 2, 2]),
        ((7, E), [1, E, 7, E, 2, E, 3], [0, 0, 1, 1, 1, 2, 2]),
        ((1, 2, 3), [1, E], [0, 1]),  # longer than the window
    ],
)
def test_a_document_holds_its_own_beginning_or_else_the_end_before_it(beginning, tokens, documents):
    found = Separate().documents(torch.tensor([tokens]), E, beginning)
    assert torch.unique(found, return_inverse=True)[1].tolist() == [documents]


def test_the_last_target_tells_whose_a_last_end_of_text_is(tiny_run, build):
    seen = []
    model = build(tiny_run("llama"))
    model.hidden = lambda tokens, documents: seen.append(documents.tolist()) or model.embedding(tokens)
    documents = functools.partial(Separate().documents, end_of_text=E, beginning=(7,))
    objective = Objective(model, CrossEntropy(), torch.device("cpu"), "fp32", documents=documents)
    window = torch.tensor([[7, 1, E, 7], [7, 1, E, 3]])
    objective(window[:, :-1], window[:, 1:])
    assert seen == [[[0, 0, 0], [0, 0, 1]]]
