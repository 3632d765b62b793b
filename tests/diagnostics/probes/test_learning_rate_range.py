"""Learning-rate range test: finds a planted limit, leaves nothing changed."""

import math

import pytest
import torch
from torch.nn import Parameter

from spikeless.diagnostics.probes.learning_rate_range import LearningRateRange, learning_rate_range
from spikeless.errors import UserError


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=1.0)


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=1.0, weight_decay=0.0)


def quadratic(curvature: float = 4.0):
    """Gradient descent on it is unstable from a rate of 2 / curvature."""
    x = Parameter(torch.full((8,), 0.1, dtype=torch.float64))
    return x, lambda step: 0.5 * curvature * x.square().sum()


def test_on_a_quadratic_the_limit_is_where_gradient_descent_becomes_unstable():
    x, loss = quadratic()
    found = learning_rate_range(
        lambda step: (
            loss(step) + 0.01 * (-1) ** step * x.sum()
        ),  # a push, or it would rest at the minimum to the last bit
        [x],
        sgd,
        steps=400,
        low=0.01,
        high=10.0,
    )
    assert found.limit is not None
    assert 0.5 <= found.limit <= 0.6
    assert found.limit == found.lrs[-1]
    assert len(found.lrs) == len(found.losses) < 400


def test_a_step_that_is_too_large_is_the_limit_at_once():
    x, loss = quadratic()
    found = learning_rate_range(loss, [x], sgd, steps=5, low=10.0, high=1000.0)
    assert found.limit == 10.0
    assert found.lrs == (10.0,)
    assert found.losses[0] > found.first_loss + 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_it(bad):
    x, loss = quadratic()
    found = learning_rate_range(
        lambda step: loss(step) if step < 3 else loss(step) * bad, [x], sgd, steps=9, low=1e-4, high=1e-2
    )
    assert len(found.lrs) == 3
    assert found.limit == found.lrs[2]


def test_without_a_blow_up_there_is_no_limit_and_rates_grow_exponentially():
    x, loss = quadratic()
    found = learning_rate_range(loss, [x], sgd, steps=5, low=1e-4, high=1e-2)
    assert found.limit is None
    assert found.lrs == pytest.approx([1e-4, 10**-3.5, 1e-3, 10**-2.5, 1e-2])
    assert list(found.losses) == sorted(found.losses, reverse=True)
    assert found.first_loss > found.losses[0]


def test_the_margin_counts_from_the_lowest_loss():
    x = Parameter(torch.zeros(1))
    course = [10.0, 9.0, 6.0, 6.9, 7.1, 5.0]
    found = learning_rate_range(lambda step: x.sum() * 0 + course[step], [x], sgd, steps=5, low=1e-3, high=1e-2)
    assert found.losses == pytest.approx((9.0, 6.0, 6.9, 7.1))
    assert found.limit == found.lrs[3]


@pytest.mark.parametrize(
    ("losses", "limit", "at"),
    [
        ((9.0, 8.0, 8.0, 9.0, 12.0), None, 3),  # averages with memory 0.6: 9, 8.6, 8.36, 8.616, 9.97
        ((9.0, 8.0, 8.0, 8.7, 8.7), None, 4),  # 9, 8.6, 8.36, 8.496, 8.578
        ((9.0, 8.0, 8.0, 8.2, 8.1), None, None),
        ((9.0, 8.0, math.inf), 3e-3, 2),
        ((9.0, math.nan), 2e-3, 1),
        ((9.0, 8.99), 7e-3, "limit"),
    ],
)
def test_the_rise_is_of_the_averaged_loss(losses, limit, at):
    lrs = tuple(1e-3 * (step + 1) for step in range(len(losses)))
    found = LearningRateRange(lrs=lrs, losses=losses, first_loss=9.0, limit=limit)
    assert found.rise() == (limit if at in (None, "limit") else lrs[at])
    assert found.rise(margin=100.0) == (limit if all(map(math.isfinite, losses)) else lrs[at])


def test_the_rate_is_set_in_all_groups_and_clipping_is_done():
    x, y = Parameter(torch.zeros(1)), Parameter(torch.zeros(1))
    seen = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            norm = math.hypot(*(p.grad.item() for group in self.param_groups for p in group["params"]))
            seen.append((*(group["lr"] for group in self.param_groups), norm))
            return super().step(closure)

    learning_rate_range(
        lambda step: -30 * x.sum() - 40 * y.sum(),
        [x, y],
        lambda _: Watched([{"params": [x]}, {"params": [y], "lr": 7.0}], lr=1.0),
        steps=2,
        low=0.1,
        high=0.2,
        max_norm=1.0,
    )
    assert seen == [(0.1, 0.1, pytest.approx(1)), (pytest.approx(0.2), pytest.approx(0.2), pytest.approx(1))]


@pytest.mark.parametrize("ending", ["limit", "end", RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_changed(ending):
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    frozen = model[2].bias.requires_grad_(False)
    data = torch.randn(16, 8)

    def loss(step):
        if step == 3 and isinstance(ending, type):
            raise ending("stop")
        return model(data).square().mean() + (math.nan if step == 3 and ending == "limit" else 0)

    loss(0).backward()
    parameters = list(model.parameters())
    weights = [each.detach().clone() for each in parameters]
    gradients = [each.grad for each in parameters]
    values = [None if each is None else each.clone() for each in gradients]
    random = torch.get_rng_state()
    if isinstance(ending, type):
        with pytest.raises(ending):
            learning_rate_range(loss, parameters, adamw, steps=6, low=1e-3, high=1e-1)
    else:
        found = learning_rate_range(loss, parameters, adamw, steps=6, low=1e-3, high=1e-1)
        assert (found.limit is not None) == (ending == "limit")
    assert torch.equal(torch.get_rng_state(), random)
    for parameter, weight, gradient, value in zip(parameters, weights, gradients, values, strict=True):
        assert torch.equal(parameter, weight)
        assert parameter.grad is gradient
        assert value is None or torch.equal(gradient, value)
    assert not frozen.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [({"steps": 1}, "2 steps"), ({"low": 0.0}, "rising"), ({"low": 2.0}, "rising"), ({"high": math.inf}, "rising")],
)
def test_a_range_that_is_none_is_refused(change, message):
    x, loss = quadratic()
    with pytest.raises(UserError, match=message):
        learning_rate_range(loss, [x], sgd, **({"steps": 5, "low": 1e-3, "high": 1.0} | change))


def test_nothing_to_train_and_a_broken_first_loss_are_refused():
    x, loss = quadratic()
    with pytest.raises(UserError, match="before any step"):
        learning_rate_range(lambda step: loss(step) * math.nan, [x], sgd, steps=5, low=1e-3, high=1.0)
    with pytest.raises(UserError, match="nothing to train"):
        learning_rate_range(loss, [x.requires_grad_(False)], sgd, steps=5, low=1e-3, high=1.0)
