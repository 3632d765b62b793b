import math

import pytest
import torch

from spikeless.errors import UserError
from spikeless.nn.projection import (
    LowRank,
    LowRankLinear,
    parity_rank,
    product_std,
    spectral_norm_of_gaussian,
    spectral_norm_of_product,
)

SHAPES = [(64, 64), (64, 16), (16, 64)]


def low_rank(d_in: int, d_out: int, bias: bool = True) -> LowRankLinear:
    module = LowRank(rank=5).build(d_in, d_out, bias).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
def test_merged_is_the_same_map(d_in, d_out, bias):
    module = low_rank(d_in, d_out, bias)
    x = torch.randn(2, 3, d_in, dtype=torch.float64)
    assert module.merged().shape == (d_out, d_in)
    torch.testing.assert_close(module(x), torch.nn.functional.linear(x, module.merged(), module.bias))
    assert torch.linalg.matrix_rank(module.merged()) == 5


@pytest.mark.parametrize("width", [2, 64, 768, 4096])
def test_parity_is_half_the_width_of_a_square_matrix(width):
    assert parity_rank(width, width) == width // 2


@pytest.mark.parametrize(("d_in", "d_out"), [*SHAPES, (2048, 512), (4096, 1024), (768, 100)])
def test_parity_is_the_rank_closest_to_the_dense_parameter_count(d_in, d_out):
    rank = parity_rank(d_in, d_out)
    missed = [abs(r * (d_in + d_out) - d_in * d_out) for r in (rank - 1, rank, rank + 1)]
    assert min(missed) == missed[1]


@pytest.mark.parametrize(("rank", "resolved"), [("parity", 13), (1, 1), (16, 16), (0.25, 4), (1.0, 16), (0.1, 2)])
def test_resolve_rank(rank, resolved):
    assert LowRank(rank=rank).resolve_rank(64, 16) == resolved


@pytest.mark.parametrize("rank", [0, -1, 17, 0.0, 0.01, 1.5, -0.5, True])
def test_a_rank_out_of_range_is_refused(rank):
    with pytest.raises(UserError, match=r"out of range for a 16 x 64 projection; use 1 to 16"):
        LowRank(rank=rank).build(64, 16, bias=False)


@pytest.mark.parametrize("rank", [1, 32, 200])
def test_std_of_a_product(rank):
    factors = torch.randn(400, rank, dtype=torch.float64), torch.randn(rank, 300, dtype=torch.float64)
    measured = (0.3 * factors[0] @ (0.3 * factors[1])).std().item()
    assert measured == pytest.approx(product_std(0.3, rank), rel=0.15 if rank == 1 else 0.03)


@pytest.mark.parametrize("shape", [(512, 512), (512, 128), (128, 512)])
def test_spectral_norm_of_a_matrix(shape):
    measured = torch.linalg.matrix_norm(torch.randn(shape), 2).item()
    assert measured == pytest.approx(spectral_norm_of_gaussian(*shape), rel=0.03)


@pytest.mark.parametrize(
    "shape", [(512, 256, 512), (512, 64, 512), (128, 100, 512), (512, 100, 128), (256, 512, 256), (300, 300, 300)]
)
def test_spectral_norm_of_a_product(shape):
    rows, rank, columns = shape
    measured = torch.linalg.matrix_norm(torch.randn(rows, rank) @ torch.randn(rank, columns), 2).item()
    assert measured == pytest.approx(spectral_norm_of_product(*shape), rel=0.03)


def test_a_product_of_very_different_ranks_is_nearly_its_parts():
    """With rank much smaller than both sides the factors are nearly orthogonal: the norms multiply."""
    assert spectral_norm_of_product(10**8, 1, 10**8) == pytest.approx(10**8, rel=1e-3)


@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
@pytest.mark.parametrize("init", ["product", "factor", "spectral"])
def test_factor_stds_are_what_the_mode_says(init, d_in, d_out):
    module = LowRank(init=init).build(d_in, d_out, bias=False)
    stds = module.stds(0.02)
    assert set(stds) == {name for name, _ in module.named_parameters()}
    down, up = stds["down.weight"], stds["up.weight"]
    if init == "factor":
        assert down == up == 0.02
    elif init == "product":
        assert math.sqrt(module.rank) * down * up == pytest.approx(0.02)
    else:
        of_product = down * up * spectral_norm_of_product(d_out, module.rank, d_in)
        assert of_product == pytest.approx(0.02 * (math.sqrt(d_in) + math.sqrt(d_out)))
