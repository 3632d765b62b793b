"""Standard deviations of a run without its weights, against those of drawn weights."""

import math

import pytest
import torch

from spikeless.config import replace_at
from spikeless.errors import UserError
from spikeless.nn.embedding import TokenEmbedding
from spikeless.preflight.strengths import strengths_of

MODULES = {
    "query": "attention.query",
    "key": "attention.key",
    "value": "attention.value",
    "attention_out": "attention.out",
    "ffn_up": "ffn.up",
    "ffn_gate": "ffn.gate",
    "ffn_down": "ffn.down",
}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("techniques", [(), ("small_init",), ("xavier_init",), ("dense_scale_matched",)])
def test_matrices_have_the_std_shape_and_norm_of_the_drawn_ones(family, techniques, tiny_run, build):
    run = tiny_run(family, *techniques, width=128, num_kv_heads=2)
    found, model = strengths_of(run, 32), build(run)
    assert found.embedding_std == pytest.approx(model.embedding.weight.std().item(), rel=0.03)
    assert (found.width, found.vocab_size, found.tokens, len(found.blocks)) == (128, 97, 32, 2)
    for block, sub_layers in zip(model.blocks, found.blocks, strict=True):
        assert [each.kind for each in sub_layers] == ["attention", "ffn"]
        matrices = sub_layers[0].matrices | sub_layers[1].matrices
        assert set(matrices) == {role for role in MODULES if role != "ffn_gate" or family == "llama"}
        for role, matrix in matrices.items():
            weight = block.get_submodule(MODULES[role]).weight
            assert (matrix.d_out, matrix.d_in) == tuple(weight.shape)
            assert matrix.std == pytest.approx(weight.std().item(), rel=0.05)
            assert matrix.norm == pytest.approx(torch.linalg.matrix_norm(weight, 2).item(), rel=0.1)


@pytest.mark.parametrize("init", ["product", "factor", "spectral"])
def test_low_rank_products_are_one_matrix(init, tiny_run, build):
    run = tiny_run("llama", f"mlra(init={init})", width=256, num_heads=4)
    found, model = strengths_of(run, 32), build(run)
    product = model.blocks[0].attention.value.merged()
    matrix = found.blocks[0][0].matrices["value"]
    assert matrix.std == pytest.approx(product.std().item(), rel=0.05)
    assert matrix.norm == pytest.approx(torch.linalg.matrix_norm(product, 2).item(), rel=0.05)


def test_what_stands_behind_the_embedding(tiny_run):
    plain, scaled = strengths_of(tiny_run("gpt2"), 8), strengths_of(tiny_run("gpt2", "scaled_embed"), 8)
    assert (plain.multiplier, plain.embedding_norm, plain.positions_std) == (1.0, None, 0.02)
    assert scaled.multiplier == math.sqrt(32)
    assert strengths_of(tiny_run("gpt2", "embed_norm"), 8).embedding_norm == "layernorm"
    normed = strengths_of(tiny_run("llama", "embed_norm(eps=1e-5)"), 8)
    assert (normed.embedding_norm, normed.positions_std) == ("rmsnorm", None)
    assert normed.token_std(eps=False) == 1.0
    assert normed.token_std(eps=True) == pytest.approx(0.02 / math.sqrt(0.02**2 + 1e-5))
    negative = replace_at(tiny_run(), {"model.embedding": TokenEmbedding(multiplier=-3.0)})
    assert strengths_of(negative, 8).token_std(eps=True) == pytest.approx(0.06)


def test_epsilon_and_activation_are_read(tiny_run):
    run = replace_at(tiny_run("llama"), {"model.norm.eps": 1e-3, "model.ffn.activation": "relu"})
    for sub_layer in strengths_of(run, 8).blocks[1]:
        assert (sub_layer.norm_eps, sub_layer.activation, sub_layer.output_norm) == (1e-3, "relu", None)


def test_a_run_without_a_vocabulary_is_refused(tiny_run):
    with pytest.raises(UserError, match="vocab_size is not set"):
        strengths_of(tiny_run(vocab_size=None), 8)
