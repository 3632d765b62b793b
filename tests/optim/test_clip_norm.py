import math

import pytest
import torch

from spikeless.errors import UserError
from spikeless.optim.gradients.clip_norm import ClipNorm
from spikeless.stats import global_norm


@pytest.fixture
def parameters():
    made = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((4, 5), (7,), (2, 3))]
    for index, parameter in enumerate(made):
        parameter.grad = (index + 1) * torch.randn(parameter.shape)
    return made


def norm(parameters) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in parameters]).norm()


def clip(parameters, max_norm: float) -> None:
    ClipNorm(max_norm=max_norm).apply([parameter.grad for parameter in parameters], norm(parameters))


@pytest.mark.parametrize("max_norm", [0.01, 1.0, 3.0])
def test_the_stored_gradients_are_scaled_to_the_norm(parameters, max_norm):
    before, size = [parameter.grad.clone() for parameter in parameters], norm(parameters)
    assert size > 3
    clip(parameters, max_norm)
    assert norm(parameters).item() == pytest.approx(max_norm, rel=1e-5)
    for parameter, old in zip(parameters, before, strict=True):
        torch.testing.assert_close(parameter.grad, old * (max_norm / size))


def test_gradients_below_the_norm_keep_every_bit(parameters):
    before = [parameter.grad.clone() for parameter in parameters]
    clip(parameters, norm(parameters).item() * 1.01)
    assert all(torch.equal(parameter.grad, old) for parameter, old in zip(parameters, before, strict=True))


def test_gradients_at_the_norm_and_those_whose_norm_is_not_finite_stay_as_they_are(parameters):
    gradients = [parameter.grad for parameter in parameters]
    for size, max_norm in ((2.0, 2.0), (math.inf, 1.0), (math.nan, 1.0)):
        before = [each.clone() for each in gradients]
        ClipNorm(max_norm=max_norm).apply(gradients, torch.tensor(size))
        assert all(map(torch.equal, gradients, before))


def test_gradients_of_less_than_fp32_are_scaled_in_their_own_type():
    gradients = [torch.tensor([3.0, 4.0], dtype=torch.bfloat16)]
    ClipNorm(max_norm=1.0).apply(gradients, global_norm(gradients))
    torch.testing.assert_close(gradients[0], torch.tensor([0.6, 0.8], dtype=torch.bfloat16))


def test_gradients_of_zero_stay_zero(parameters):
    for parameter in parameters:
        parameter.grad.zero_()
    clip(parameters, 1.0)
    assert norm(parameters) == 0


def test_it_agrees_with_torch(parameters):
    theirs = [torch.nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    for parameter, copy in zip(parameters, theirs, strict=True):
        copy.grad = parameter.grad.clone()
    torch.nn.utils.clip_grad_norm_(theirs, 0.5)
    clip(parameters, 0.5)
    for parameter, copy in zip(parameters, theirs, strict=True):
        torch.testing.assert_close(parameter.grad, copy.grad)


@pytest.mark.parametrize("max_norm", [0.0, -1.0])
def test_a_norm_out_of_range_is_refused(max_norm):
    with pytest.raises(UserError, match="max_norm"):
        ClipNorm(max_norm=max_norm)
