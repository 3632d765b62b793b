"""Critical learning rate: against a quadratic, against torch's AdamW, and that nothing is left changed."""

import math

import pytest
import torch
from torch.nn import Parameter

from spikeless.diagnostics.probes.adam_first_update import adam_first_update
from spikeless.diagnostics.probes.critical_learning_rate import critical_learning_rate
from spikeless.errors import UserError

WITHIN = 1 / 16


class Quadratic:
    """L = 0.5 x.H x - b.x, fp64, in two parameters."""

    def __init__(self):
        torch.manual_seed(3)
        root = torch.randn(6, 6, dtype=torch.float64)
        self.hessian = root @ root.T + torch.eye(6, dtype=torch.float64)
        self.linear = torch.randn(6, dtype=torch.float64)
        self.parameters = {
            "a": Parameter(torch.randn(2, 2, dtype=torch.float64)),
            "b": Parameter(torch.randn(2, dtype=torch.float64)),
        }

    def loss(self) -> torch.Tensor:
        x = torch.cat([each.flatten() for each in self.parameters.values()])
        return 0.5 * x @ self.hessian @ x - self.linear @ x

    def gradients(self) -> dict[str, torch.Tensor]:
        return dict(zip(self.parameters, torch.autograd.grad(self.loss(), list(self.parameters.values())), strict=True))

    def exact(self, update: dict[str, torch.Tensor]) -> float:
        step = torch.cat([each.flatten() for each in update.values()])
        gradient = torch.cat([each.flatten() for each in self.gradients().values()])
        return float(2 * step @ gradient / (step @ self.hessian @ step))


@pytest.fixture
def quadratic() -> Quadratic:
    return Quadratic()


@pytest.mark.parametrize("start", [1e-5, 1e-3, 0.7, 300.0])
@pytest.mark.parametrize("kind", ["gradient", "adam"])
def test_on_a_quadratic_it_is_the_crossing_from_any_start(quadratic, start, kind):
    gradients = quadratic.gradients()
    update = gradients if kind == "gradient" else adam_first_update(gradients, quadratic.parameters, eps=1e-8)
    found = critical_learning_rate(quadratic.loss, quadratic.parameters, update, start=start, gradients=gradients)
    exact = quadratic.exact(update)
    low, high = found.bracket
    assert found.descent
    assert low <= exact <= high
    assert 1 - low / high <= WITHIN
    assert abs(found.critical / exact - 1) <= WITHIN
    assert found.sharpness == pytest.approx(2 / found.critical)
    assert found.evaluations <= 2 + 20 + 4


def test_a_good_start_costs_about_as_many_evaluations_as_the_paper_says(quadratic):
    update = quadratic.gradients()
    start = 0.8 * quadratic.exact(update)
    assert critical_learning_rate(quadratic.loss, quadratic.parameters, update, start=start).evaluations <= 7


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_an_increase(bad):
    x = Parameter(torch.ones(1, dtype=torch.float64))
    wall = 0.11

    def loss():
        moved = 1 - x.item()
        return bad if moved > wall else -moved

    found = critical_learning_rate(loss, {"x": x}, {"x": torch.ones(1, dtype=torch.float64)})
    assert found.bracket[0] <= wall <= found.bracket[1]
    assert found.critical == pytest.approx(wall, rel=WITHIN)


@pytest.mark.parametrize("told", [True, False])
def test_no_descent_direction(quadratic, told):
    gradients = quadratic.gradients()
    update = {name: -each for name, each in gradients.items()}
    found = critical_learning_rate(quadratic.loss, quadratic.parameters, update, gradients=gradients if told else None)
    assert not found.descent
    assert found.critical == 0
    assert found.sharpness == math.inf
    assert found.evaluations == (1 if told else 22)


def test_steps_too_small_for_the_weights_are_no_descent():
    """fp32 weights do not move by 1e-9: the loss is the same, which proves nothing."""
    x = Parameter(torch.ones(1))
    found = critical_learning_rate(lambda: 1 - x.item(), {"x": x}, {"x": torch.ones(1)}, start=1e-3)
    assert not found.descent


def test_no_increase_is_said_with_the_rate_up_to_which():
    x = Parameter(torch.ones(1, dtype=torch.float64))
    found = critical_learning_rate(lambda: x.item(), {"x": x}, {"x": torch.ones(1)}, start=1e-3)
    assert found.descent
    assert found.critical == math.inf
    assert found.sharpness == 0
    assert found.bracket == (pytest.approx(1e-3 * 2**20), math.inf)
    assert found.evaluations == 22


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("at", [1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_come_back_bit_for_bit_when_it_breaks(error, at, dtype):
    x = Parameter(torch.randn(50).to(dtype))
    before = x.detach().clone()
    calls = 0

    def loss():
        nonlocal calls
        calls += 1
        if calls > at:
            raise error("stop")
        return x.float().square().sum()

    with pytest.raises(error):
        critical_learning_rate(loss, {"x": x}, {"x": x.detach().float()})
    assert calls == at + 1
    assert torch.equal(x, before)
    assert x.dtype == dtype


def test_nothing_is_left_changed(quadratic):
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    data = torch.randn(16, 8)

    def loss():
        return model(data).square().mean()  # in training mode on purpose: it draws random numbers

    loss().backward()
    parameters = dict(model.named_parameters())
    gradients = {name: each.grad for name, each in parameters.items()}
    weights = {name: each.detach().clone() for name, each in parameters.items()}
    kept = {name: each.clone() for name, each in gradients.items()}
    random = torch.get_rng_state()
    found = critical_learning_rate(loss, parameters, gradients, gradients=gradients)
    assert found.evaluations > 2
    assert torch.equal(torch.get_rng_state(), random)
    for name, parameter in parameters.items():
        assert torch.equal(parameter, weights[name])
        assert parameter.grad is gradients[name]
        assert torch.equal(parameter.grad, kept[name])
        assert parameter.requires_grad


def test_every_evaluation_sees_the_same_random_numbers():
    x = Parameter(torch.ones(1))
    seen = []

    def loss():
        seen.append(torch.rand(()).item())
        return x.square().sum()

    critical_learning_rate(loss, {"x": x}, {"x": torch.ones(1)})
    assert len(set(seen)) == 1


def test_a_tied_parameter_under_two_names_moves_once():
    x = Parameter(torch.full((3,), 2.0, dtype=torch.float64))
    step = torch.full((3,), 4.0, dtype=torch.float64)
    found = critical_learning_rate(
        lambda: x.square().sum(), {"embedding": x, "head": x}, {"embedding": step, "head": step}
    )
    assert found.critical == pytest.approx(1.0, rel=WITHIN)  # theta - eta 4 = -theta
    assert torch.equal(x, torch.full((3,), 2.0, dtype=torch.float64))


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({}, "empty"),
        ({"y": torch.ones(3)}, "'y'"),
        ({"x": torch.ones(1)}, "shape"),
    ],
)
def test_an_update_that_does_not_fit_is_refused(update, message):
    x = Parameter(torch.ones(3))
    with pytest.raises(UserError, match=message):
        critical_learning_rate(lambda: x.sum(), {"x": x}, update)
    assert x.shape == (3,)


def test_a_start_that_is_no_rate_and_a_loss_that_is_no_number_are_refused():
    x = Parameter(torch.ones(3))
    with pytest.raises(UserError, match="positive"):
        critical_learning_rate(lambda: x.sum(), {"x": x}, {"x": torch.ones(3)}, start=0.0)
    with pytest.raises(UserError, match="before any step"):
        critical_learning_rate(lambda: math.nan, {"x": x}, {"x": torch.ones(3)})


# --- the direction of AdamW's first step ---


@pytest.mark.parametrize("max_norm", [None, 1e-6, 100.0])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("eps", [1e-8, 1e-2])
def test_it_is_the_first_step_that_torch_makes(max_norm, weight_decay, eps):
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3)).double()
    parameters = dict(model.named_parameters())
    model(torch.randn(4, 5, dtype=torch.float64)).square().sum().backward()
    gradients = {name: each.grad.clone() for name, each in parameters.items()}
    before = {name: each.detach().clone() for name, each in parameters.items()}

    def decayed(name):
        return name.endswith("weight")

    update = adam_first_update(
        gradients, parameters, eps=eps, weight_decay=weight_decay, decayed=decayed, max_norm=max_norm
    )
    lr = 1e-3
    groups = [
        {"params": [p for n, p in parameters.items() if decayed(n)], "weight_decay": weight_decay},
        {"params": [p for n, p in parameters.items() if not decayed(n)], "weight_decay": 0.0},
    ]
    if max_norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), eps=eps).step()
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.detach(), before[name] - lr * update[name], rtol=1e-12, atol=1e-14)


def test_gradients_and_parameters_are_only_read():
    x, gradient = Parameter(torch.randn(9)), torch.randn(9)
    before, kept = x.detach().clone(), gradient.clone()
    update = adam_first_update({"x": gradient}, {"x": x}, eps=1e-8, weight_decay=0.1, max_norm=1e-3)
    assert torch.equal(x, before)
    assert torch.equal(gradient, kept)
    assert not update["x"].requires_grad


def test_only_what_has_a_gradient_moves_and_a_stranger_is_refused():
    x, y = Parameter(torch.ones(2)), Parameter(torch.ones(2))
    update = adam_first_update({"x": torch.ones(2)}, {"x": x, "y": y}, eps=0.0, weight_decay=0.1)
    assert set(update) == {"x"}
    with pytest.raises(UserError, match="'z'"):
        adam_first_update({"z": torch.ones(2)}, {"x": x}, eps=1e-8)
