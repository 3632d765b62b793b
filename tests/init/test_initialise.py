import math

import pytest
import torch

from spikeless.config import names_in, replace_at
from spikeless.init import InitConfig, TargetStd, initialise
from spikeless.init.gpt2 import GPT2Init
from spikeless.init.normal import NormalInit
from spikeless.init.small import SmallInit
from spikeless.init.xavier import XavierInit
from spikeless.roles import Role, role_of

FAMILIES = pytest.mark.parametrize("family", ["gpt2", "llama"])
WIDTH, LAYERS = 64, 3
SCHEMES = {"gpt2": GPT2Init(), "normal": NormalInit(), "small": SmallInit(), "xavier": XavierInit()}


def formula(scheme: str, role: Role, shape: torch.Size) -> float:
    """The schemes' formulas, written out a second time."""
    depth = 1 / math.sqrt(2 * LAYERS) if role in (Role.ATTENTION_OUT, Role.FFN_DOWN) else 1.0
    return {
        "gpt2": 0.02 * depth,
        "normal": 0.02,
        "small": math.sqrt(2 / (5 * WIDTH)) * depth,
        "xavier": math.sqrt(2 / (shape[0] + shape[1])),
    }[scheme]


def matrices(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: each for name, each in model.named_parameters() if role_of(name).is_matrix}


def test_every_scheme_has_its_formula_here():
    assert set(SCHEMES) == set(names_in("init"))


@FAMILIES
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_matrix_has_the_std_of_its_scheme(family, scheme, tiny_run, build):
    """The sample's std is within five standard errors, std / sqrt(2 n), of the formula's; the mean near zero."""
    model = build(tiny_run(family, scheme=SCHEMES[scheme], width=WIDTH, num_layers=LAYERS, tied=False))
    for name, parameter in matrices(model).items():
        expected, count = formula(scheme, role_of(name), parameter.shape), parameter.numel()
        assert parameter.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * count)), name
        assert abs(parameter.mean().item()) < 5 * expected / math.sqrt(count), name


@FAMILIES
def test_norms_start_at_one_and_biases_at_zero(family, tiny_run, build):
    run = tiny_run(family, "embed_norm", "mlra")
    model = build(run)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 7.0)
    initialise(model, run.init, 0, width=32, num_layers=2)
    for name, parameter in model.named_parameters():
        if not role_of(name).is_matrix:
            assert (parameter == float(name.endswith("norm.weight"))).all(), name


# --- a seed of its own for every name ---


def test_models_share_the_draws_of_the_names_they_share(tiny_run, build):
    """Arms of a comparison differ in the parameters that the technique touches and in no other."""
    scheme = SCHEMES["normal"]
    reference = build(tiny_run("gpt2", scheme=scheme)).state_dict()
    for other in (
        build(tiny_run("gpt2", scheme=scheme, num_layers=4)),
        build(tiny_run("llama", scheme=scheme, tied=False)),
        build(tiny_run("gpt2", "mlra", scheme=scheme)),
    ):
        shared = [k for k, v in other.state_dict().items() if k in reference and v.shape == reference[k].shape]
        assert {"embedding.weight", "blocks.1.attention.out.weight"} <= set(shared)
        assert all(torch.equal(other.state_dict()[name], reference[name]) for name in shared)


def test_scales_differ_but_the_draw_is_the_same(tiny_run, build):
    one, other = (build(tiny_run(scheme=SCHEMES[name])).embedding.weight for name in ("gpt2", "small"))
    torch.testing.assert_close(one / 0.02, other / math.sqrt(2 / (5 * 32)))


def test_the_draw_does_not_depend_on_the_order_of_construction():
    def model(*names: str) -> torch.nn.Module:
        made = torch.nn.Module()
        for name in names:
            made.add_module(name, torch.nn.Linear(8, 8, bias=False))
        initialise(made, InitConfig(), 0, width=8, num_layers=1)
        return made

    one, other = model("embedding", "head"), model("head", "embedding")
    assert torch.equal(one.head.weight, other.head.weight)
    assert torch.equal(one.embedding.weight, other.embedding.weight)
    assert not torch.equal(one.head.weight, one.embedding.weight)


def test_the_draw_does_not_depend_on_the_global_generator_and_leaves_it_alone(tiny_run, build):
    model = build(tiny_run())
    before, state = model.embedding.weight.clone(), torch.get_rng_state()
    torch.manual_seed(12345)
    state = torch.get_rng_state()
    initialise(model, tiny_run().init, 0, width=32, num_layers=2)
    assert torch.equal(model.embedding.weight, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("seed", [1, 2**40, -1])
def test_another_seed_is_another_draw(seed, tiny_run, build):
    one, other = matrices(build(tiny_run(), 0)), matrices(build(tiny_run(), seed))
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_no_two_parameters_share_a_draw(tiny_run, build):
    values = [each.flatten()[:50] / each.std() for each in matrices(build(tiny_run(), 0)).values()]
    correlation = torch.corrcoef(torch.stack(values)) - torch.eye(len(values))
    assert correlation.abs().max() < 0.7


# --- what techniques ask for ---


@pytest.mark.parametrize("role", [role for role in Role if role.is_matrix])
def test_a_target_overrides_the_scheme_for_its_role_alone(role, tiny_run, build):
    run = tiny_run("gpt2" if role is Role.POSITION_EMBEDDING else "llama", tied=False, width=WIDTH)
    before = matrices(build(run))
    after = matrices(build(replace_at(run, {f"init.target_std.{role}": 0.5})))
    assert any(role_of(name) is role for name in after)
    for name, parameter in after.items():
        if role_of(name) is role:
            assert parameter.std().item() == pytest.approx(0.5, rel=0.05)
        else:
            assert torch.equal(parameter, before[name])


def test_a_target_is_resolved_against_the_scheme():
    class Half:
        def resolve(self, scheme_std, d_out, d_in):
            return scheme_std / 2 + (d_out == 3) + 10 * (d_in == 5)

    init = InitConfig(target_std=TargetStd(query=Half()))
    assert init.std(Role.QUERY, 3, 5, width=8, num_layers=1) == pytest.approx(11.01)
    assert init.std(Role.KEY, 3, 5, width=8, num_layers=1) == 0.02


def test_a_target_of_zero_is_a_target():
    init = InitConfig(target_std=TargetStd(head=0.0))
    assert init.std(Role.HEAD, 3, 5, width=8, num_layers=1) == 0.0


@pytest.mark.parametrize("mode", ["product", "factor", "spectral"])
def test_factors_start_from_the_target_of_their_role(mode, tiny_run, build):
    run = replace_at(tiny_run("gpt2", f"mlra(init={mode})", width=WIDTH), {"init.target_std.key": 0.5})
    attention = build(run).blocks[0].attention
    dense = {"query": 0.02, "key": 0.5}
    for name, std in dense.items():
        module = getattr(attention, name)
        expected = module.stds(std)["up.weight"]
        assert module.up.weight.std().item() == pytest.approx(expected, rel=0.06)
        assert module.down.weight.std().item() == pytest.approx(expected, rel=0.06)
