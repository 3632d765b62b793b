import jaxtyping
import pytest
import torch

from spikeless.config import replace_at
from spikeless.errors import UserError
from spikeless.nn.attention import Cache
from spikeless.nn.transformer import Transformer

FAMILIES = pytest.mark.parametrize("family", ["gpt2", "llama"])


@FAMILIES
@pytest.mark.parametrize("position", [0, 3, 7])
def test_logits_depend_on_earlier_tokens_only(family, position, tiny_run, build):
    """By gradients of the embedded tokens, which `embedding` returns: earlier ≠ 0, later = 0."""
    model = build(tiny_run(family)).double()
    embedded = []
    model.embedding.register_forward_hook(lambda _, __, out: embedded.append(out) or out.retain_grad())
    model(torch.arange(8)[None])[0, position].square().sum().backward()
    influence = embedded[0].grad[0].abs().amax(dim=1)
    assert (influence[: position + 1] > 0).all()
    assert (influence[position + 1 :] == 0).all()


@FAMILIES
@pytest.mark.parametrize("parts", [[1] * 12, [5, 1, 6], [12]])
@pytest.mark.parametrize("technique", [None, "mlra", "embed_norm"])
def test_incremental_logits_are_the_full_logits(family, parts, technique, tiny_run, build):
    model = build(tiny_run(family, *filter(None, [technique]))).double()
    tokens, caches = torch.randint(97, (2, 12)), [Cache() for _ in model.blocks]
    pieces = [model(part, caches) for part in tokens.split(parts, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens), rtol=0, atol=1e-10)


@FAMILIES
@pytest.mark.parametrize("technique", [None, "mlra", "embed_norm", "scaled_embed"])
def test_the_last_stream_through_the_final_norm_is_hidden(family, technique, tiny_run, build):
    model, tokens = build(tiny_run(family, *filter(None, [technique]))).double(), torch.randint(97, (2, 12))
    streams = list(model.streams(tokens))
    assert len(streams) == 1 + len(model.blocks)
    assert torch.equal(model.final_norm(streams[-1]), model.hidden(tokens))
    entering, leaving = [], []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda _, given: entering.append(given[0]))
        block.register_forward_hook(lambda _, __, out: leaving.append(out))
    model.hidden(tokens)
    assert all(torch.equal(one, other) for one, other in zip(streams, [entering[0], *leaving], strict=True))


@FAMILIES
def test_a_tied_head_is_the_embedding(family, tiny_run):
    tied, untied = (Transformer(tiny_run(family, tied=tied).model) for tied in (True, False))
    assert tied.output_weight is tied.embedding.weight
    assert untied.output_weight is untied.head.weight
    assert set(untied.state_dict()) - set(tied.state_dict()) == {"head.weight"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 30}, r"model\.width=30 is not divisible by model\.num_heads=4; .* use num_heads of 2, 3, 5"),
        ({"num_kv_heads": 3}, r"num_heads=4 is not divisible by num_kv_heads=3"),
        ({"num_layers": 0}, r"model\.num_layers=0 is out of range"),
        ({"num_kv_heads": 0}, r"model\.num_kv_heads=0 is out of range"),
        ({"vocab_size": -1}, r"model\.vocab_size=-1 is out of range"),
        ({"vocab_size": None}, "vocab_size is not set"),
        ({"width": 12}, "even head width, not 3"),
    ],
)
def test_sizes_that_make_no_model_are_refused(changes, message, tiny_run):
    model = replace_at(tiny_run("llama").model, changes)
    with pytest.raises(UserError, match=message):
        Transformer(model)


def test_a_sequence_longer_than_the_context_is_refused(tiny_run):
    with pytest.raises(UserError, match=r"sequence_length=64 is longer than model\.context_length=32"):
        replace_at(tiny_run(), {"data.sequence_length": 64}).check()


def test_shapes_in_signatures_are_checked_in_tests(tiny_run):
    with pytest.raises(jaxtyping.TypeCheckError, match="tokens"):
        Transformer(tiny_run().model)(torch.arange(8))
