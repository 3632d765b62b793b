"""No technique and no pair leaves a trace: a class of `transformers` computes the same from the folded weights."""

import copy
import itertools

import pytest
import torch

from spikeless.config import names_in, replace_at
from spikeless.errors import UserError
from spikeless.nn.attention import SelfAttention
from spikeless.nn.embedding import TokenEmbedding
from spikeless.nn.ffn import MLP, GatedMLP
from spikeless.nn.norm import LayerNorm, RMSNorm
from spikeless.nn.positions import Learned
from spikeless.nn.projection import Dense
from spikeless.pretrained.describe import describe
from spikeless.pretrained.fold import fold
from spikeless.pretrained.write import write_pretrained
from spikeless.stabilizers import apply

NAMES = names_in("stabilizers")
COMBINATIONS = [(), *((name,) for name in NAMES), *itertools.combinations(NAMES, 2)]
FAMILIES = pytest.mark.parametrize("family", ["gpt2", "llama"])


def largest_difference(ours, theirs):
    tokens = torch.randint(97, (2, 32))
    with torch.no_grad():
        a, b = ours(tokens), theirs(tokens)
        b = getattr(b, "logits", b)
    return (a - b).abs().max().item(), max(1.0, a.abs().max().item())


@FAMILIES
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("techniques", COMBINATIONS, ids="+".join)
def test_no_technique_and_no_pair_leaves_a_trace(
    techniques, family, tied, tiny_run, build, inflate, as_theirs, in_float64
):
    """Weights twice as large and norms moved, as after training; exact in float64, where nothing hides in rounding."""
    run = tiny_run(family, tied=tied, num_kv_heads=2 if family == "llama" else None)
    try:
        run = apply(run, techniques)
    except UserError as error:
        assert "exclude each other" in str(error)
        return
    model = inflate(build(run)).eval()
    plain = fold(model)
    assert plain.config.embedding == TokenEmbedding()
    assert plain.config.attention == SelfAttention(projection=Dense(), bias=run.model.attention.bias)
    assert describe(plain.config)["tie_word_embeddings"] == plain.config.tied
    difference, scale = largest_difference(model, as_theirs(plain))
    assert difference <= 1e-5 * scale
    double = copy.deepcopy(model).double()
    difference, _ = largest_difference(double, in_float64(as_theirs(fold(double))))
    assert difference <= 1e-10


@pytest.mark.parametrize(
    ("technique", "tied"),
    [("mlra", True), ("embed_detach", True), ("small_init", True), ("scaled_embed", False), ("embed_norm", False)],
)
@FAMILIES
def test_a_tied_head_is_untied_only_where_the_input_table_changes(technique, tied, family, tiny_run, build, inflate):
    model = inflate(build(tiny_run(family, technique, tied=True)))
    plain = fold(model)
    assert plain.config.tied is tied
    assert torch.equal(plain.output_weight, model.embedding.weight)
    assert torch.equal(plain.embedding.weight, model.embedding.transform(model.embedding.weight))


def test_folding_shares_what_is_plain_already_and_changes_nothing(tiny_run, build):
    model = build(tiny_run("llama", "mlra", "scaled_embed"))
    before = {name: each.clone() for name, each in model.state_dict().items()}
    plain = fold(model)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert plain.blocks[0].ffn.up.weight.data_ptr() == model.blocks[0].ffn.up.weight.data_ptr()


def test_factors_are_multiplied_in_float64_and_rounded_once(tiny_run, build):
    model = build(tiny_run("gpt2", "mlra"))
    query, merged = model.blocks[0].attention.query, fold(model).blocks[0].attention.query.weight
    exact = query.up.weight.double() @ query.down.weight.double()
    assert torch.equal(merged, exact.float())


# --- what cannot be exported ---


@pytest.mark.parametrize(
    ("family", "changes", "named"),
    [
        ("gpt2", {"model.ffn": GatedMLP()}, "model.ffn = GatedMLP"),
        ("gpt2", {"model.norm": RMSNorm()}, "model.norm = RMSNorm"),
        ("gpt2", {"model.norm.bias": False}, "model.norm.bias = False"),
        ("gpt2", {"model.attention.bias": False}, "model.attention.bias = False"),
        ("gpt2", {"model.num_kv_heads": 2}, "model.num_kv_heads = 2"),
        ("llama", {"model.norm": LayerNorm()}, "model.norm = LayerNorm"),
        ("llama", {"model.ffn": MLP()}, "model.ffn = MLP"),
        ("llama", {"model.ffn.bias": True}, "model.ffn.bias = True"),
        ("llama", {"model.attention.bias": True}, "model.attention.bias = True"),
        ("llama", {"model.positions": Learned()}, "model.positions = Learned"),
    ],
)
def test_a_part_that_their_class_lacks_is_named(family, changes, named, tiny_run, build, tokenizer, tmp_path):
    plain = fold(build(replace_at(tiny_run(family), changes)))
    with pytest.raises(UserError, match="cannot express") as error:
        write_pretrained(plain, tokenizer, tmp_path, dtype=torch.float32)
    assert named in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu", "relu", "silu"])
@FAMILIES
def test_every_activation_has_their_name(activation, family, tiny_run, build, inflate, as_theirs):
    model = inflate(build(replace_at(tiny_run(family), {"model.ffn.activation": activation}))).eval()
    difference, scale = largest_difference(model, as_theirs(fold(model)))
    assert difference <= 1e-5 * scale


def test_a_part_that_does_not_say_how_it_folds_is_named(tiny_run, build):
    model = build(tiny_run("gpt2"))
    model.blocks[1].attention.query.scale = torch.nn.Parameter(torch.ones(32))
    with pytest.raises(UserError, match=r"blocks\.1\.attention\.query\.scale cannot be folded"):
        fold(model)
