import math

import pytest
import torch

from spikeless.preflight.measurements import DeclaredInit
from spikeless.preflight.tensors import CHUNK_ELEMENTS, read_tensors


def read(tensor, **more):
    (reading,) = read_tensors({"w": tensor}, roles={}, layers={}, **more)
    return reading


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(7,), (300, 500), (3, 200, 300)])
def test_moments_agree_with_float64(dtype, shape):
    values = (torch.randn(shape) * 0.02 + 0.01).to(dtype)
    found = read(values)
    exact = values.double()
    assert found.std == pytest.approx(exact.std(correction=0).item(), rel=1e-12)
    assert found.mean == pytest.approx(exact.mean().item(), rel=1e-12)
    assert found.max_abs == exact.abs().max().item()
    assert (found.finite, found.zeros, found.constant) == (1.0, 0.0, False)


def test_a_large_mean_costs_no_digits():
    values = torch.randn(500, 500, dtype=torch.float64) + 1e6
    assert read(values).std == pytest.approx(values.std(correction=0).item(), rel=1e-9)


@pytest.mark.parametrize(
    "view",
    [lambda w: w.t(), lambda w: w[:, 10:300], lambda w: w[::2], lambda w: w[None].expand(3, -1, -1), lambda w: w[0, 0]],
)
def test_views_are_read_as_they_are_seen(view):
    values = view(torch.randn(400, 600))
    found = read(values)
    assert found.std == pytest.approx(values.double().std(correction=0).item(), rel=1e-12)
    assert found.mean == pytest.approx(values.double().mean().item(), rel=1e-9)


def test_what_is_not_finite_is_counted_and_left_out():
    values = torch.ones(4, CHUNK_ELEMENTS)
    values[0, 0], values[0, 1], values[2, 5] = math.nan, math.inf, -math.inf
    values[3, :2] = 3.0
    found = read(values)
    count = values.numel()
    assert found.finite == pytest.approx(1 - 3 / count, rel=1e-12)
    assert found.max_abs == 3.0
    assert found.mean == pytest.approx(1 + 4 / (count - 3))
    assert not found.constant
    nothing = read(torch.full((3, 3), math.nan))
    assert nothing.finite == 0.0
    assert math.isnan(nothing.std)


def test_large_numbers_are_no_infinities():
    assert read(torch.full((100, 100), 3e38)).finite == 1.0
    mixed = torch.tensor([1e308, 1e308, 1e308], dtype=torch.float64)
    assert read(mixed).finite == 1.0


def test_zeros_and_constants():
    values = torch.randn(100, 100)
    values[:25] = 0
    assert read(values).zeros == 0.25
    constant = read(torch.full((300, 300), 0.1))
    assert (constant.constant, constant.std, constant.mean) == (True, 0.0, torch.tensor(0.1).item())
    assert read(torch.zeros(4, 4)).zeros == 1.0
    assert not read(torch.tensor([2.0])).constant


def test_an_empty_parameter_is_survived():
    assert read(torch.empty(0, 4)).finite == 1.0


def test_layouts_roles_layers_and_gains_are_passed_on():
    found = read_tensors(
        {
            "linear": torch.randn(6, 4),
            "conv1d": torch.randn(6, 4),
            "experts": torch.randn(3, 6, 4),
            "norm": torch.ones(5),
        },
        roles={"linear": "query", "norm": "norm"},
        layers={"linear": 2},
        transposed={"conv1d"},
        gains={"norm": (1.0, 2.0)},
    )
    linear, conv1d, experts, norm = found
    assert [each.name for each in found] == ["linear", "conv1d", "experts", "norm"]
    assert (linear.fan_in, linear.fan_out, linear.role, linear.layer) == (4, 6, "query", 2)
    assert (conv1d.fan_in, conv1d.fan_out, conv1d.role, conv1d.layer) == (6, 4, None, None)
    assert (experts.fan_in, experts.fan_out, experts.shape) == (4, 6, (3, 6, 4))
    assert (norm.fan_in, norm.gain_min, norm.gain_max) == (0, 1.0, 2.0)


def test_on_the_meta_device_the_declaration_counts():
    meta = torch.empty(4, 4, device="meta")
    normal = DeclaredInit(written=True, distribution="normal", std=0.02, mean=0.0)
    found = read(meta, declared={"w": normal})
    assert (found.std, found.mean, found.zeros, found.constant) == (0.02, 0.0, 0.0, False)
    assert found.declared is normal
    zero = read(meta, declared={"w": DeclaredInit(written=True, distribution="constant", std=0.0, mean=0.0)})
    assert (zero.std, zero.zeros, zero.constant) == (0.0, 1.0, True)
    assert math.isnan(read(meta).std)
    assert math.isnan(read(meta, declared={"w": DeclaredInit(written=True)}).std)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nothing_is_written(dtype):
    values = torch.randn(300, 300, dtype=dtype)
    before = values.clone()
    read(values)
    assert torch.equal(values, before)
