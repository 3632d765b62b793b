"""Statistics of rows against float64 brute force."""

import pytest
import torch

from spikeless.evaluation.tev.moments import row_statistics
from spikeless.stats import row_moments


def chunks(table, at_once=7):
    """The way they come from the disk: one buffer, overwritten."""
    buffer = torch.empty_like(table[:at_once])
    for start in range(0, len(table), at_once):
        part = table[start : start + at_once]
        yield buffer[: len(part)].copy_(part)


TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_stored_type(dtype):
    table = (torch.randn(50, 33, dtype=torch.float64) * 2 + 0.5).to(dtype)
    found = row_statistics(chunks(table), 50)
    torch.testing.assert_close(found.raw, table.double().std(1, correction=0), rtol=1e-6, atol=0)
    assert found.effective is None


def test_it_is_what_the_diagnostic_measures():
    table = torch.randn(100, 64)
    expected = row_moments(table)[0].sqrt()
    torch.testing.assert_close(row_statistics(chunks(table), 100).raw.float(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("mean", "std"), [(1e4, 1.0), (-1e6, 1.0), (0.0, 1e-30), (1e-30, 1e-32), (0.0, 1e30), (3.0, 1e-5)]
)
def test_numbers_that_fp32_sums_would_not_serve(mean, std):
    table = torch.randn(20, 512) * std + mean
    found = row_statistics(chunks(table), 20)
    torch.testing.assert_close(found.raw, table.double().std(1, correction=0), rtol=2e-6, atol=0)


def test_rows_of_one_value_and_rows_that_are_not_finite():
    table = torch.randn(10, 6)
    table[1], table[2], table[3] = 0, 0.1, -0.0
    table[4, 2], table[5, 0], table[6] = torch.nan, torch.inf, torch.inf
    found = row_statistics(chunks(table, 4), 10)
    assert (found.constant, found.zero) == (3, 2)
    assert found.raw.isfinite().tolist() == [True] * 4 + [False] * 3 + [True] * 3
    assert found.raw[1:4].tolist() == [0, 0, 0]


@pytest.mark.parametrize("scale", [torch.tensor(0.5), torch.rand(30, 1) + 0.5])
def test_scales(scale):
    table = torch.randn(30, 16).to(torch.float8_e4m3fn)
    table[3] = 1.0  # done again in float64
    found = row_statistics(chunks(table), 30, scale)
    torch.testing.assert_close(found.raw, (table.double() * scale).std(1, correction=0), rtol=1e-6, atol=1e-12)


def test_a_transform_sees_the_rows_as_they_are():
    table = torch.randn(30, 16) + 5
    table[3] *= 1e-30  # done again in float64
    found = row_statistics(chunks(table), 30, transform=lambda rows: rows * rows)
    expected = table.double().square().std(1, correction=0)
    torch.testing.assert_close(found.effective, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(found.raw, table.double().std(1, correction=0), rtol=1e-6, atol=0)
