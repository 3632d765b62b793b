"""Gradient variance: the free one from Adam's moments, the exact one over micro-batches."""

import pytest
import torch

from spikeless.diagnostics import Snapshot
from spikeless.diagnostics.gradient_variance_exact import gradient_variance_exact
from spikeless.diagnostics.gradient_variance_free import FIRST_STEP, gradient_variance_free
from spikeless.errors import UserError

NOTHING = torch.zeros(1, 1)


def group_of(name):
    return name[0]


# --- free ---


@pytest.mark.parametrize("step", [FIRST_STEP, 37])
def test_free_is_the_explicit_formula_on_the_gradients_that_adam_saw(step):
    """Moments by hand from their definition as weighted sums, not by Adam's recursion."""
    beta1, beta2 = 0.9, 0.95
    shapes = {"a1": (3, 4), "a2": (5,), "b1": (2, 2)}
    parameters = {name: torch.nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}
    optimizer = torch.optim.AdamW(parameters.values(), betas=(beta1, beta2), fused=True)
    history = {name: torch.randn(step, *shape) + 0.3 for name, shape in shapes.items()}
    for index in range(step):
        for name, parameter in parameters.items():
            parameter.grad = history[name][index].clone()
        optimizer.step()
    readings = gradient_variance_free(
        Snapshot(
            embedding=NOTHING,
            moments={name: optimizer.state[parameter] for name, parameter in parameters.items()},
            step=step,
            betas=(beta1, beta2),
            group_of=group_of,
        )
    )
    variances = {}
    for name, gradients in history.items():
        weight = torch.ones_like(gradients, dtype=torch.float64)
        age = torch.arange(step - 1, -1, -1, dtype=torch.float64).view(-1, *[1] * (gradients.ndim - 1))
        first = (weight * beta1**age * gradients).sum(0) * (1 - beta1) / (1 - beta1**step)
        second = (weight * beta2**age * gradients.double() ** 2).sum(0) * (1 - beta2) / (1 - beta2**step)
        variances[name] = (second - first**2).flatten()
    assert readings["gradient_variance/free/b"].item() == pytest.approx(variances["b1"].mean().item(), rel=1e-4)
    together = torch.cat([variances["a1"], variances["a2"]]).mean().item()  # by entry, not by tensor
    assert readings["gradient_variance/free/a"].item() == pytest.approx(together, rel=1e-4)
    assert len(readings) == 2


@pytest.mark.parametrize("step", [0, 1, FIRST_STEP - 1])
def test_free_is_undefined_before_step_ten(step):
    moments = {"a": {"exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}}
    assert gradient_variance_free(Snapshot(embedding=NOTHING, moments=moments, step=step)) == {}
    assert gradient_variance_free(Snapshot(embedding=NOTHING, moments={}, step=step + FIRST_STEP)) == {}


# --- exact ---


def linear_problem(count, size=16, noise=0.0):
    """Micro-batches of a two-layer model, and its parameters by name."""
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))
    data = [(torch.randn(size, 5), torch.randn(size, 3)) for _ in range(count)]
    named = {f"{name[0]}.{name}": parameter for name, parameter in model.named_parameters()}
    losses = tuple(lambda x=x, y=y: torch.nn.functional.mse_loss(model(x), y) for x, y in data)
    return named, losses


@pytest.mark.parametrize("count", [4, 5, 9])
def test_exact_is_the_brute_force_over_micro_batches(count):
    named, losses = linear_problem(count)
    snapshot = Snapshot(embedding=NOTHING, parameters=named, micro_batches=losses, group_of=group_of)
    readings = gradient_variance_exact(snapshot)
    gradients = [torch.autograd.grad(loss(), list(named.values())) for loss in losses]
    expected = {}
    for index, name in enumerate(named):
        stacked = torch.stack([each[index].double() for each in gradients])
        expected.setdefault(group_of(name), []).append((torch.var(stacked, 0, correction=1) / count).flatten())
    assert readings.keys() == {f"gradient_variance/exact/{group}" for group in (*expected, "all")}
    for group, variances in expected.items():
        reading = readings[f"gradient_variance/exact/{group}"].item()
        assert reading == pytest.approx(torch.cat(variances).mean().item(), rel=1e-4)
    together = torch.cat([each for variances in expected.values() for each in variances])
    assert readings["gradient_variance/exact/all"].item() == pytest.approx(together.mean().item(), rel=1e-4)


def test_exact_of_all_is_the_mean_of_the_groups_by_size():
    named, losses = linear_problem(4)
    readings = gradient_variance_exact(
        Snapshot(embedding=NOTHING, parameters=named, micro_batches=losses, group_of=group_of)
    )
    sizes = {group: sum(each.numel() for name, each in named.items() if name[0] == group) for group in "02"}
    weighted = sum(readings[f"gradient_variance/exact/{group}"] * size for group, size in sizes.items())
    assert readings["gradient_variance/exact/all"].item() == pytest.approx((weighted / sum(sizes.values())).item())
    plain = (readings["gradient_variance/exact/0"] + readings["gradient_variance/exact/2"]) / 2
    assert readings["gradient_variance/exact/all"].item() != pytest.approx(plain.item(), rel=1e-3)


def test_exact_keeps_its_digits_beside_a_large_mean():
    """Welford: gradients of 1000 with deviations of 0.01, where a sum of squares would lose them."""
    parameter = torch.nn.Parameter(torch.zeros(50))
    noise = torch.randn(8, 50) * 0.01 + 1000
    losses = tuple(lambda g=g: (parameter * g).sum() for g in noise)
    reading = gradient_variance_exact(Snapshot(embedding=NOTHING, parameters={"a": parameter}, micro_batches=losses))
    expected = (noise.double().var(0, correction=1) / 8).mean().item()
    assert reading["gradient_variance/exact/a"].item() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_exact_refuses_fewer_than_four_micro_batches(count):
    named, losses = linear_problem(count)
    with pytest.raises(UserError, match=f"at least 4 equal micro-batches, not {count}"):
        gradient_variance_exact(Snapshot(embedding=NOTHING, parameters=named, micro_batches=losses))


def test_exact_leaves_the_gradients_as_they_were():
    named, losses = linear_problem(4)
    names = list(named)
    named[names[0]].grad = torch.full_like(named[names[0]], 7.0)
    gradient_variance_exact(Snapshot(embedding=NOTHING, parameters=named, micro_batches=losses))
    assert torch.equal(named[names[0]].grad, torch.full_like(named[names[0]], 7.0))
    assert all(named[name].grad is None for name in names[1:])


def test_exact_is_near_the_analytical_value_of_a_linear_model():
    """With y = noise of std s and w = 0, d/dw of mean (w x - y)^2 over B is -2 mean(x y).

    With x of +1 and -1 its variance is 4 s^2 / B for one micro-batch, and 4 s^2 / (B M) for the whole step.
    """
    width, size, count, std = 400, 32, 16, 3.0
    weight = torch.nn.Parameter(torch.zeros(width))
    losses = []
    for _ in range(count):
        x, y = torch.randn(size, width).sign(), torch.randn(size, width) * std
        losses.append(lambda x=x, y=y: ((weight * x - y) ** 2).mean(0).sum())
    snapshot = Snapshot(embedding=NOTHING, parameters={"w": weight}, micro_batches=tuple(losses))
    reading = gradient_variance_exact(snapshot)["gradient_variance/exact/w"].item()
    # 400 independent estimates with 15 degrees of freedom: relative error sqrt(2 / 15 / 400) = 1.8 %
    assert reading == pytest.approx(4 * std**2 / (size * count), rel=0.08)
