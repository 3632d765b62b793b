import pytest
import torch

from spikeless import stats
from spikeless.stats import global_norm, mean_and_std, row_moments

SHAPES = [(1, 1), (7, 1), (1, 5), (33, 17), (1000, 129), (3, stats.CHUNK_ELEMENTS + 1)]


def brute_force(rows, against=None):
    """Population variance and covariance in float64, from the definition."""
    rows = rows.double()
    centred = rows - rows.mean(1, keepdim=True)
    variance = (centred**2).mean(1)
    if against is None:
        return variance, None
    return variance, (centred * (against.double() - against.double().mean())).mean(1)


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_row_moments_are_those_of_the_definition(shape, offset):
    """The offset would cost a one-pass variance, E[x^2] - E[x]^2, all its digits."""
    rows, against = torch.randn(shape) + offset, torch.randn(shape[1]) + offset
    variance, covariance = row_moments(rows, against=against)
    expected_variance, expected_covariance = brute_force(rows, against)
    torch.testing.assert_close(variance.double(), expected_variance, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(covariance.double(), expected_covariance, rtol=1e-4, atol=1e-3 if offset else 1e-6)
    assert row_moments(rows)[1] is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_moments_are_fp32_whatever_is_measured(dtype):
    """Squares of 300 overflow fp16, whose largest number is 65504."""
    rows = (torch.randn(50, 31) * 300).to(dtype)
    variance, covariance = row_moments(rows, against=rows[0])
    assert variance.dtype == covariance.dtype == torch.float32
    expected = brute_force(rows, rows[0])
    torch.testing.assert_close(variance.double(), expected[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(covariance.double(), expected[1], rtol=1e-4, atol=1)


def test_the_transform_sees_every_row_once_in_any_chunks(monkeypatch):
    rows, against, seen = torch.randn(101, 16), torch.randn(16), []

    def transform(chunk):
        seen.append(chunk.clone())
        return chunk**3 + 1

    monkeypatch.setattr(stats, "CHUNK_ELEMENTS", 16 * 10 + 3)
    variance, covariance = row_moments(rows, transform, against)
    assert [len(chunk) for chunk in seen] == [10] * 10 + [1]
    assert torch.equal(torch.cat(seen), rows)
    expected = brute_force(rows**3 + 1, against)
    torch.testing.assert_close(variance.double(), expected[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(covariance.double(), expected[1], rtol=1e-4, atol=1e-5)


def test_row_moments_leave_the_rows_as_they_were_and_record_no_gradient():
    rows = torch.nn.Parameter(torch.randn(20, 8))
    before = rows.detach().clone()
    variance, covariance = row_moments(rows, lambda chunk: chunk, against=rows[0])
    assert torch.equal(rows, before)
    assert not variance.requires_grad
    assert not covariance.requires_grad


def test_mean_and_std_are_of_the_population():
    mean, std = mean_and_std(torch.tensor([1.0, 3.0]))
    assert (mean, std) == (2.0, 1.0)


def test_global_norm_is_that_of_all_entries_together():
    tensors = [torch.randn(3, 4), torch.randn(()), torch.randn(7)]
    together = torch.cat([each.flatten() for each in tensors])
    torch.testing.assert_close(global_norm(iter(tensors)), together.double().norm().float())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_global_norm_hides_nothing(bad):
    norm = global_norm([torch.ones(3), torch.tensor([1.0, bad])])
    assert norm.isnan() if bad != bad else norm == torch.inf


@pytest.mark.parametrize(
    ("tensors", "dtype"),
    [
        ([[3e19, 4e19]], torch.float32),
        ([[3e19], [4e19]], torch.float32),
        ([[3e-30], [4e-30]], torch.float32),
        ([[6e4, 6e4]], torch.float16),
        ([[1.0, 3.0], [1.0, 4.0, 1.0]], torch.bfloat16),
        ([[3e100, 4e100]], torch.float64),
        ([[0.0], []], torch.float32),
    ],
    ids=str,
)
def test_the_global_norm_has_the_digits_and_the_range_of_fp32(tensors, dtype):
    tensors = [torch.tensor(each, dtype=dtype) for each in tensors]
    norm = global_norm(tensors)
    assert norm.dtype == torch.promote_types(dtype, torch.float32)
    expected = torch.cat(tensors).double().norm()
    torch.testing.assert_close(norm.double(), expected, rtol=1e-6, atol=0)


def test_the_global_norm_of_usual_gradients_is_torchs_to_the_last_bit():
    """The losses of earlier versions stay what they were; a norm that fp32 cannot hold is infinite."""
    tensors = [torch.randn(300, 40), torch.randn(7), torch.randn(40, 300) * 1e-4]
    assert torch.equal(global_norm(tensors), torch.nn.utils.get_total_norm(tensors))
    assert global_norm([torch.tensor([3e38, 3e38])]) == torch.inf
    assert global_norm([]) == 0
