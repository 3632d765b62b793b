"""Documents in one window: nothing leaks, and each is computed as if it stood alone."""

import itertools

import pytest
import torch

from spikeless.nn.boundaries import Joined, Separate, document_layout

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


def test_where_documents_begin_with_a_token_of_their_own_it_is_position_zero():
    tokens = torch.tensor([[5, 9, 7, 5, 9, 7, 5]])  # 9 ends a document, 7 begins one
    assert Separate().documents(tokens, 9, begins=True).tolist() == [[0, 0, 1, 1, 1, 2, 2]]
    assert Separate().documents(tokens, 9).tolist() == [[0, 1, 1, 1, 2, 2, 2]]
