import math

import pytest
import torch

from spikeless.errors import UserError
from spikeless.optim.adamw import AdamW
from spikeless.roles import Role, role_of


def decays(model: torch.nn.Module, config: AdamW) -> dict[str, float]:
    """Weight decay of every parameter by name."""
    by_identity = {
        id(parameter): group["weight_decay"]
        for group in config.build(model.named_parameters()).param_groups
        for parameter in group["params"]
    }
    return {name: by_identity[id(parameter)] for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("technique", [None, "mlra", "embed_norm"])
def test_matrices_and_embeddings_decay_norms_and_biases_do_not(family, technique, tiny_run, build):
    model = build(tiny_run(family, *filter(None, [technique]), tied=False))
    for name, decay in decays(model, AdamW(weight_decay=0.3)).items():
        assert decay == (0.0 if role_of(name) in (Role.NORM, Role.BIAS) else 0.3), name


def test_undecayed_spares_its_roles_alone(tiny_run, build):
    model = build(tiny_run(tied=False))
    plain = decays(model, AdamW())
    spared = decays(model, AdamW(undecayed=("token_embedding", "query")))
    changed = {role_of(name) for name in plain if plain[name] != spared[name]}
    assert changed == {Role.TOKEN_EMBEDDING, Role.QUERY}


def test_every_parameter_is_updated_once(tiny_run, build):
    model = build(tiny_run())
    groups = AdamW().build(model.named_parameters()).param_groups
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(listed) == sorted(id(parameter) for parameter in model.parameters())


def test_parameters_keep_their_order_within_a_group(tiny_run, build):
    """Optimizer state is saved by position."""
    model = build(tiny_run())
    order = {id(parameter): index for index, parameter in enumerate(model.parameters())}
    for group in AdamW().build(model.named_parameters()).param_groups:
        indices = [order[id(parameter)] for parameter in group["params"]]
        assert indices == sorted(indices)


def test_a_group_without_parameters_is_left_out():
    optimizer = AdamW().build([("head.weight", torch.nn.Parameter(torch.ones(2, 2)))])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1]


@pytest.mark.parametrize(("name", "decay"), [("head.weight", 0.2), ("final_norm.weight", 0.0)])
def test_the_update_is_adamw(name, decay):
    """Against the update written out in float64: decay is decoupled from the moments, epsilon is outside the root."""
    config = AdamW(lr=0.05, beta1=0.8, beta2=0.9, eps=1e-3, weight_decay=0.2)
    parameter = torch.nn.Parameter(torch.randn(3, 4, dtype=torch.float64))
    optimizer = config.build([(name, parameter)])
    expected, m, v = parameter.detach().clone(), 0.0, 0.0
    for step in range(1, 8):
        gradient = 10.0 ** (-step) * torch.randn(3, 4, dtype=torch.float64)
        m, v = 0.8 * m + 0.2 * gradient, 0.9 * v + 0.1 * gradient**2
        m_hat, v_hat = m / (1 - 0.8**step), v / (1 - 0.9**step)
        expected = expected - 0.05 * decay * expected - 0.05 * m_hat / (v_hat.sqrt() + 1e-3)
        parameter.grad = gradient.clone()
        optimizer.step()
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("field", "value"), [("lr", -1e-3), ("weight_decay", -0.1), ("beta1", 1.0), ("beta2", 1.5), ("beta2", -0.1)]
)
def test_a_number_out_of_range_is_refused(field, value):
    with pytest.raises(UserError, match=rf"optim\.{field}={value} is out of range"):
        AdamW(**{field: value})


def test_defaults_make_a_model_learn(tiny_run, build):
    run, tokens = tiny_run(), torch.randint(97, (4, 17))
    model = build(run)
    optimizer, losses = AdamW(lr=1e-2).build(model.named_parameters()), []
    for _ in range(20):
        loss = run.loss(model.hidden(tokens[:, :-1]), model.output_weight, tokens[:, 1:])
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[0] == pytest.approx(math.log(97), rel=0.02)
    assert losses[-1] < losses[0] / 2
