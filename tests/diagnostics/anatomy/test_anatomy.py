"""Embedding, blocks, sub-layers and head are found in any causal language model, on the meta device too."""

import pytest
import torch

from spikeless.config import names_in
from spikeless.diagnostics.anatomy import dissect, matrices_of
from spikeless.diagnostics.anatomy.language_model import LanguageModel
from spikeless.errors import UserError
from spikeless.roles import Role, role_of

# family -> form, parameter of each role in block 1 (as it ends), what a row goes through, tied
SEPARATE = {
    Role.QUERY: "q_proj.weight",
    Role.KEY: "k_proj.weight",
    Role.VALUE: "v_proj.weight",
    Role.ATTENTION_OUT: "o_proj.weight",
    Role.FFN_UP: "up_proj.weight",
    Role.FFN_GATE: "gate_proj.weight",
    Role.FFN_DOWN: "down_proj.weight",
}
OPT = {
    Role.QUERY: "q_proj.weight",
    Role.KEY: "k_proj.weight",
    Role.VALUE: "v_proj.weight",
    Role.ATTENTION_OUT: "out_proj.weight",
    Role.FFN_UP: "fc1.weight",
    Role.FFN_DOWN: "fc2.weight",
}
NEOX = {
    Role.VALUE: "query_key_value.weight",
    Role.ATTENTION_OUT: "dense.weight",
    Role.FFN_UP: "dense_h_to_4h.weight",
    Role.FFN_DOWN: "dense_4h_to_h.weight",
}
TRUTH = {
    "gpt2": (
        "pre-norm",
        {
            Role.VALUE: "c_attn.weight",
            Role.ATTENTION_OUT: "attn.c_proj.weight",
            Role.FFN_UP: "c_fc.weight",
            Role.FFN_DOWN: "mlp.c_proj.weight",
        },
        "none",
        True,
    ),
    "llama": ("pre-norm", SEPARATE, "none", False),
    "mistral": ("pre-norm", SEPARATE, "none", False),
    "qwen2": ("pre-norm", SEPARATE, "none", False),
    "qwen3": ("pre-norm", SEPARATE, "none", False),
    "gemma2": ("sandwich", SEPARATE, "× 5.657", True),
    "gemma3": ("sandwich", SEPARATE, "× 5.657", True),
    "opt": ("pre-norm", OPT, "none", True),
    "opt, post-norm": ("post-norm", OPT, "projection to 32", True),
    "bloom": ("pre-norm", NEOX, "LayerNorm", True),
    "gpt-neox": ("parallel", NEOX, "none", False),
    "gpt-neox, sequential": ("pre-norm", NEOX, "none", False),
    "phi": ("parallel", {**OPT, Role.ATTENTION_OUT: "dense.weight"}, "none", False),
    "phi3": (
        "pre-norm",
        {
            Role.VALUE: "qkv_proj.weight",
            Role.ATTENTION_OUT: "o_proj.weight",
            Role.FFN_UP: "gate_up_proj.weight",
            Role.FFN_DOWN: "down_proj.weight",
        },
        "none",
        False,
    ),
    "falcon": ("parallel", NEOX, "none", True),
    "gpt-j": (
        "parallel",
        {**OPT, Role.FFN_UP: "fc_in.weight", Role.FFN_DOWN: "fc_out.weight"},
        "none",
        False,
    ),
    "olmo2": ("sandwich", SEPARATE, "none", False),
    "granite": ("pre-norm", SEPARATE, "× 3", False),
}
KINDS = {"parallel": ["parallel"]}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("family", TRUTH)
def test_every_part_of_a_family_is_found(family, device, make_family):
    form, names, words, tied = TRUTH[family]
    views = []
    model = make_family(family, device=device)
    lm = LanguageModel(model)
    anatomy = dissect(lm)
    ids = torch.arange(8, device=device)[None]
    with lm.quiet(), torch.no_grad():
        anatomy.run(ids, views.append)
    assert anatomy.unplaced == []
    assert (anatomy.width, anatomy.vocab_size, anatomy.num_heads) == (32, 97, 4)
    assert anatomy.forms == (form,) * 3
    assert anatomy.tied is tied
    assert anatomy.entry.name == next(
        n for n, p in model.named_parameters() if p is model.get_input_embeddings().weight
    )
    assert anatomy.entry.words == words or (device == "meta" and "gemma" in family)
    found = {matrix.role: matrix for part in views[1].parts for matrix in matrices_of(part)}
    assert {role: matrix.name for role, matrix in found.items()}.keys() == names.keys()
    for role, ending in names.items():
        assert found[role].name.endswith(ending)
        assert anatomy.roles[found[role].name] is role
        assert anatomy.layers[found[role].name] == 1
    assert [part.kind for part in views[1].parts] == KINDS.get(form, ["attention", "ffn"])
    assert anatomy.transposed == ({m for m in anatomy.transposed if "c_" in m} if family == "gpt2" else set())
    one_dimensional = {name for name, p in model.named_parameters() if p.dim() == 1}
    assert {anatomy.roles[name] for name in one_dimensional} <= {Role.NORM, Role.BIAS}
    for name in one_dimensional:
        assert (anatomy.roles[name] is Role.NORM) == ("norm" in name.lower() or ".ln_" in name)


@pytest.mark.parametrize("techniques", [(), ("embed_norm",), ("embed_detach", "scaled_embed"), ("mlra",)])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_our_own_models_have_the_roles_that_their_names_say(family, techniques, tiny_run, build):
    run = tiny_run(family, *techniques)
    model = build(run)
    anatomy = dissect(LanguageModel(model))
    assert {name: anatomy.roles[name] for name, _ in model.named_parameters()} == {
        name: role_of(name) for name, _ in model.named_parameters()
    }
    multiplier = 32**0.5 if "scaled_embed" in techniques else 1.0
    assert anatomy.entry.multiplier == pytest.approx(multiplier)
    assert (anatomy.entry.norm is not None) == ("embed_norm" in techniques)
    assert (anatomy.entry.positions is not None) == (family == "gpt2")
    rows = model.embedding.weight[:5].detach()
    assert torch.allclose(anatomy.entry.function(rows), model.embedding.transform(rows))


def test_mlra_is_one_matrix_of_two_factors(tiny_run, build, views_of):
    model = build(tiny_run("gpt2", "mlra(rank=4)"))
    _, views = views_of(model)
    value = views[0].parts[0].attention.matrices[Role.VALUE]
    module = model.blocks[0].attention.value
    assert value.name == "blocks.0.attention.value.up.weight @ blocks.0.attention.value.down.weight"
    assert torch.allclose(value.dense(), module.up.weight @ module.down.weight)
    x = torch.randn(3, 32)
    assert torch.allclose(value.apply(x), x @ value.dense().T, atol=1e-6)
    assert torch.allclose(value.apply_transposed(x), x @ value.dense(), atol=1e-6)


def test_a_mixture_of_experts_is_measured_as_a_whole_and_said_to_be(make_family):
    anatomy = dissect(LanguageModel(make_family("mixtral")))
    assert len(anatomy.unplaced) == 1
    assert "3 blocks" in anatomy.unplaced[0]
    assert anatomy.forms == ("pre-norm",) * 3


@pytest.mark.parametrize("family", ["gpt2", "gemma3", "llama", "bloom"])
def test_what_a_norm_does_is_told_by_what_it_gives(family, make_family):
    model = make_family(family)
    for name, parameter in model.named_parameters():
        if "norm" in name or ".ln_" in name:
            parameter.data.normal_()
    anatomy = dissect(LanguageModel(model))
    modules = dict(model.named_modules())
    for path, facts in anatomy.norms.items():
        weight = modules[path].weight.detach()
        assert torch.allclose(facts.gain.float(), 1 + weight if family == "gemma3" else weight, atol=1e-4)
        assert facts.centred == (family in ("gpt2", "bloom"))
        eps = getattr(modules[path], "eps", None) or getattr(modules[path], "variance_epsilon", None)
        assert facts.eps == pytest.approx(eps, rel=0.2)


class WithoutModules(torch.nn.Module):
    """Functional norms, bare parameters, additions in place, blocks in a Sequential."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(50, 16) * 0.1)
        self.stack = torch.nn.Sequential(*(self.Block() for _ in range(3)))

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = torch.nn.Parameter(torch.randn(16, 48) * 0.1)
            self.mix = torch.nn.Parameter(torch.randn(16, 16) * 0.1)
            self.widen = torch.nn.Parameter(torch.randn(16, 64) * 0.1)
            self.narrow = torch.nn.Parameter(torch.randn(64, 16) * 0.1)

        def forward(self, x):
            q, k, v = (torch.nn.functional.rms_norm(x, (16,)) @ self.qkv).split(16, -1)
            q, k, v = (each.unflatten(-1, (2, 8)).transpose(1, 2) for each in (q, k, v))
            heads = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + heads.transpose(1, 2).flatten(2) @ self.mix
            inner = torch.einsum("btd,df->btf", torch.nn.functional.rms_norm(x, (16,)), self.widen)
            return x + torch.relu(inner) @ self.narrow

    def forward(self, ids):
        return self.stack(torch.nn.functional.embedding(ids, self.table)) @ self.table.T


def test_a_model_without_named_parts_is_read_from_what_it_does():
    anatomy = dissect(LanguageModel(WithoutModules()))
    assert anatomy.paths == ("stack.0", "stack.1", "stack.2")
    assert anatomy.forms == ("pre-norm",) * 3
    assert anatomy.tied
    assert anatomy.unplaced == []
    roles = {name.rpartition(".")[2]: role for name, role in anatomy.roles.items()}
    assert roles == {
        "table": Role.TOKEN_EMBEDDING,
        "qkv": Role.VALUE,
        "mix": Role.ATTENTION_OUT,
        "widen": Role.FFN_UP,
        "narrow": Role.FFN_DOWN,
    }


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(11, 8)
        self.layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)

    def forward(self, ids):
        return self.layer(self.table(ids)) @ self.table.weight.T


def test_what_is_no_causal_language_model_is_refused():
    with pytest.raises(UserError, match="no logits"):
        dissect(LanguageModel(torch.nn.Sequential(torch.nn.Embedding(11, 8), torch.nn.Flatten())))
    with pytest.raises(UserError, match="cannot be called"):
        dissect(LanguageModel(torch.nn.Linear(4, 4)))
    with pytest.raises(UserError, match="later tokens"):
        LanguageModel(Encoder()).check_causal(11)


def test_a_part_that_the_user_names_is_checked(make_family):
    lm = LanguageModel(make_family("gpt2"))
    assert dissect(lm, {"blocks": "transformer.h"}).paths == tuple(f"transformer.h.{n}" for n in range(3))
    with pytest.raises(UserError, match=r"transformer\.h"):
        dissect(lm, {"blocks": "transformer.hh"})
    with pytest.raises(UserError, match="no part 'block'"):
        dissect(lm, {"block": "transformer.h"})


def test_the_model_is_left_as_it_was(make_family):
    model = make_family("llama").train()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    dissect(LanguageModel(model))
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())


def test_the_probes_are_a_registry():
    assert {"jacobian", "shortcut", "gradient_flow"} <= set(names_in("diagnostics.probes"))


class InPlace(WithoutModules):
    """Sums that overwrite the stream."""

    class Block(WithoutModules.Block):
        def forward(self, x):
            q, k, v = (torch.nn.functional.rms_norm(x, (16,)) @ self.qkv).split(16, -1)
            q, k, v = (each.unflatten(-1, (2, 8)).transpose(1, 2) for each in (q, k, v))
            heads = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x += heads.transpose(1, 2).flatten(2) @ self.mix
            x += torch.relu(torch.nn.functional.rms_norm(x, (16,)) @ self.widen) @ self.narrow
            return x


def test_a_stream_that_is_overwritten_is_read_before(views_of):
    model, other = InPlace(), WithoutModules()
    other.load_state_dict(model.state_dict())
    ids, streams = torch.arange(8)[None], []
    for each in (model, other):
        lm, found = LanguageModel(each), []
        anatomy = dissect(lm)
        with torch.no_grad(), lm.quiet():
            anatomy.run(ids, lambda view: found.extend(view.tensor(s.start).clone() for s in view.segments))  # noqa: B023
        streams.append(found)
    assert len(streams[0]) == 6
    assert all(torch.equal(a, b) for a, b in zip(*streams, strict=True))
    _, views = views_of(model)
    assert [view.form for view in views] == ["unknown"] * 3  # its derivative within the block is lost


def test_a_functional_norm_is_found_with_its_gain(views_of):
    class Gained(WithoutModules):
        class Block(WithoutModules.Block):
            def __init__(self):
                super().__init__()
                self.gain = torch.nn.Parameter(torch.rand(16) + 0.5)

            def forward(self, x):
                normed = torch.nn.functional.rms_norm(x, (16,)) * self.gain
                return x + torch.relu(normed @ self.widen) @ self.narrow

    model = Gained()
    anatomy, views = views_of(model)
    facts = anatomy.norms[views[1].segments[0].norms[0].path]
    assert torch.allclose(facts.gain.float(), model.stack[1].gain, atol=1e-4)
    assert not facts.centred
