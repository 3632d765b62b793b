"""Measured norms against dense Jacobians, and bounds that hold."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikeless.config import replace_at
from spikeless.diagnostics.anatomy import BlockView
from spikeless.diagnostics.anatomy.fused import fused_rows
from spikeless.diagnostics.probes.jacobian import jacobian
from spikeless.diagnostics.probes.jacobian_bound import jacobian_bound, lipschitz
from spikeless.diagnostics.probes.spectral_norm import spectral_norm
from spikeless.init import initialise
from spikeless.nn.ffn import MLP, GatedMLP
from spikeless.nn.norm import LayerNorm, RMSNorm
from spikeless.nn.transformer import Transformer
from spikeless.roles import Role

FAMILIES = (
    *("gpt2", "llama", "qwen2", "qwen3", "gemma2", "gemma3", "opt", "opt, post-norm", "bloom", "gpt-neox"),
    *("gpt-neox, sequential", "phi", "phi3", "falcon", "gpt-j", "olmo2", "granite", "mistral"),
)


def dense_norm(y: torch.Tensor, x: torch.Tensor) -> float:
    """Spectral norm of d y / d x, row by row."""
    rows = [torch.autograd.grad(each, x, retain_graph=True)[0].flatten() for each in y.flatten()]
    return float(torch.linalg.matrix_norm(torch.stack(rows), 2))


def bounds_of(views: list[BlockView], ones: list[BlockView], twos: list[BlockView], norms) -> list[tuple]:
    found = []
    for view, one, two in zip(views, ones, twos, strict=True):
        for index in range(len(view.segments)):
            spectral = {role: spectral_norm(each).largest for role, each in fused_rows(one, two, index).items()}
            measured = jacobian(view, index)
            bound = jacobian_bound(
                view, index, norms=norms, spectral=spectral, heads=measured.heads, tokens=measured.tokens
            )
            found.append((measured, bound))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_measured_norms_are_those_of_the_dense_jacobians(family, make_family, views_of):
    _, views = views_of(make_family(family, inflate=5.0).double(), 7)
    view = views[1]
    for index, segment in enumerate(view.segments):
        found = jacobian(view, index)
        assert found.converged
        assert (found.tokens is not None) == (view.parts[index].kind == "ffn")
        true = dense_norm(view.tensor(segment.end), view.tensor(segment.start))
        assert found.sub_layer == pytest.approx(true, rel=2e-3)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt-neox", "gemma2"])
def test_the_heads_norm_is_that_of_the_dense_jacobian(family, make_family, views_of):
    _, views = views_of(make_family(family, inflate=5.0).double(), 6)
    view, part = views[1], views[1].parts[0]
    given_ = view.tensor(part.inputs[0])
    assert jacobian(view, 0).heads == pytest.approx(dense_norm(view.tensor(part.attention.heads), given_), rel=2e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_measured_norm_is_above_its_bound(family, make_family, views_of):
    model = make_family(family, inflate=6.0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and "norm" in name:
                parameter += torch.rand(parameter.shape, generator=generator)
    anatomy, views = views_of(model, 24)
    found = bounds_of(views, views_of(model, 1)[1], views_of(model, 2)[1], anatomy.norms)
    for measured, bound in found:
        if family == "opt, post-norm":
            assert bound.value is None
            assert "post-norm" in bound.note
        else:
            assert 1.0 < measured.sub_layer <= bound.value < 1e5


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    family=st.sampled_from(["gpt2", "llama"]),
    layers=st.integers(1, 3),
    width=st.sampled_from([16, 24, 32]),
    inner=st.integers(8, 80),
    activation=st.sampled_from(["gelu", "gelu_tanh", "relu", "silu"]),
    gated=st.booleans(),
    layer_norm=st.booleans(),
    scale=st.floats(0.02, 4.0),
    gain=st.floats(0.1, 5.0),
    seed=st.integers(0, 99),
)
def test_bounds_hold_for_random_configurations(
    family, layers, width, inner, activation, gated, layer_norm, scale, gain, seed, tiny_run, views_of
):
    run = tiny_run(family, num_layers=layers, width=width, num_heads=2, num_kv_heads=None)
    ffn = (GatedMLP if gated else MLP)(width=inner, activation=activation)
    run = replace_at(run, {"model.ffn": ffn, "model.norm": LayerNorm() if layer_norm else RMSNorm()})
    model = Transformer(run.model)
    initialise(model, run.init, seed, width=width, num_layers=layers)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter *= gain if "norm" in name else scale / 0.2
    anatomy, views = views_of(model, 9)
    for measured, bound in bounds_of(views, views_of(model, 1)[1], views_of(model, 2)[1], anatomy.norms):
        assert measured.sub_layer <= bound.value * (1 + 1e-5)


def test_the_bound_of_a_linear_sub_layer_is_tight(tiny_run, build, views_of):
    """ReLU that is open everywhere, one token's largest direction: nothing is lost but by the norm."""
    run = replace_at(tiny_run("gpt2", width=16, num_heads=2), {"model.ffn": MLP(activation="relu", width=16)})
    model = build(run).double()
    block = model.blocks[0]
    with torch.no_grad():
        block.ffn.up.weight.copy_(torch.eye(16))
        block.ffn.up.bias.fill_(100.0)
        block.ffn.down.weight.copy_(3 * torch.eye(16))
    anatomy, views = views_of(model, 8)
    measured = jacobian(views[0], 1)
    spectral = {Role.FFN_UP: 1.0, Role.FFN_DOWN: 3.0}
    bound = jacobian_bound(views[0], 1, norms=anatomy.norms, spectral=spectral, heads=None, tokens=measured.tokens)
    assert measured.sub_layer <= bound.value
    assert measured.sub_layer == pytest.approx(bound.value, rel=0.02)  # epsilon beside a small variance


def test_lipschitz_constants():
    assert lipschitz("relu") == 1.0
    assert lipschitz("gelu") == pytest.approx(1.1289, abs=1e-4)
    assert lipschitz("gelu_tanh") == pytest.approx(1.1289, abs=1e-3)
    assert lipschitz("silu") == pytest.approx(1.0998, abs=1e-4)
    assert lipschitz("mish") is None


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("gpt2", {"query": 32, "key": 32, "value": 32}),
        ("bloom", {"query": 32, "key": 32, "value": 32}),
        ("gpt-neox", {"query": 32, "key": 32, "value": 32}),
        ("falcon", {"query": 32, "key": 8, "value": 8}),
        ("phi3", {"query": 32, "key": 16, "value": 16}),
    ],
)
def test_fused_projections_are_taken_apart(family, sizes, make_family, views_of):
    model = make_family(family, inflate=5.0)
    one, two = views_of(model, 1)[1][1], views_of(model, 2)[1][1]
    found = fused_rows(one, two, 0)
    assert {role: found[Role(role)].shape[0] for role in sizes} == sizes
    rows = torch.cat([found[Role(role)].factors[-1].rows for role in sizes])
    assert sorted(rows.tolist()) == list(range(sum(sizes.values())))
    if family == "gpt2":  # [query, key, value], stored [in, out]
        assert found[Role.KEY].factors[0].rows.tolist() == list(range(32, 64))
        weight = model.transformer.h[1].attn.c_attn.weight
        assert torch.equal(found[Role.VALUE].dense(), weight.T[64:])
    if family == "bloom":  # per head: query, key, value
        assert found[Role.QUERY].factors[0].rows.tolist() == [h * 24 + k for h in range(4) for k in range(8)]
    if family == "phi3":
        ffn = fused_rows(one, two, 1)
        assert ffn[Role.FFN_GATE].factors[0].rows.tolist() == list(range(64))
        assert ffn[Role.FFN_UP].factors[0].rows.tolist() == list(range(64, 128))
