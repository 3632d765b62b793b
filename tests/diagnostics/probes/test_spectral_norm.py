"""Lanczos against the dense singular value decomposition."""

import pytest
import torch

from spikeless.diagnostics.anatomy.matrices import Factor, Matrix
from spikeless.diagnostics.probes._lanczos import largest_singular_value
from spikeless.diagnostics.probes.spectral_norm import spectral_norm
from spikeless.roles import Role


def matrix(*weights: torch.Tensor, transposed: bool = False, rows: torch.Tensor | None = None) -> Matrix:
    factors = tuple(Factor(name="w", weight=each, transposed=transposed, rows=rows) for each in weights)
    return Matrix(role=Role.FFN_UP, factors=factors)


@pytest.mark.parametrize("shape", [(64, 64), (200, 50), (50, 200), (1, 7), (7, 1)])
@pytest.mark.parametrize("transposed", [False, True])
def test_it_is_the_largest_singular_value(shape, transposed):
    weight = torch.randn(shape)
    found = spectral_norm(matrix(weight, transposed=transposed))
    assert found.converged
    assert found.largest == pytest.approx(float(torch.linalg.matrix_norm(weight, 2)), rel=1e-4)


def test_equal_singular_values_and_a_wide_spectrum():
    assert spectral_norm(matrix(2 * torch.eye(40))).largest == pytest.approx(2.0)
    values = torch.logspace(0, -6, 80)
    left, right = (torch.linalg.qr(torch.randn(80, 80))[0] for _ in range(2))
    assert spectral_norm(matrix(left @ torch.diag(values) @ right)).largest == pytest.approx(1.0, rel=1e-5)


def test_a_product_and_a_part_are_never_formed():
    up, down = torch.randn(60, 10), torch.randn(10, 40)
    assert spectral_norm(matrix(down, up)).largest == pytest.approx(
        float(torch.linalg.matrix_norm(up @ down, 2)), rel=1e-4
    )
    fused, rows = torch.randn(60, 20), torch.arange(20, 40)
    assert spectral_norm(matrix(fused, rows=rows)).largest == pytest.approx(
        float(torch.linalg.matrix_norm(fused[rows], 2)), rel=1e-4
    )


def test_statistics_are_fp32_for_a_bf16_weight():
    weight = torch.randn(64, 64).bfloat16()
    assert spectral_norm(matrix(weight)).largest == pytest.approx(
        float(torch.linalg.matrix_norm(weight.double(), 2)), rel=1e-4
    )


def test_zero_and_what_is_not_finite():
    assert spectral_norm(matrix(torch.zeros(8, 8))).largest == 0.0
    broken = torch.randn(8, 8)
    broken[3, 3] = torch.nan
    assert spectral_norm(matrix(broken)).largest != spectral_norm(matrix(broken)).largest


def test_a_batch_of_maps_at_once():
    maps = torch.randn(5, 30, 20, dtype=torch.float64)
    found = largest_singular_value(
        lambda v: torch.einsum("nij,nj->ni", maps, v),
        lambda u: torch.einsum("nij,ni->nj", maps, u),
        batch=5,
        size=20,
        like=maps,
    )
    assert torch.allclose(found.values, torch.linalg.matrix_norm(maps, 2), rtol=1e-5)


def test_it_says_when_it_did_not_converge():
    weight = torch.randn(300, 300)
    found = largest_singular_value(
        lambda v: v @ weight.T, lambda u: u @ weight, batch=1, size=300, like=weight, tolerance=1e-9, most=8
    )
    assert not found.converged
    assert found.values[0] < torch.linalg.matrix_norm(weight, 2)
    assert found.residuals[0] > 1e-9
