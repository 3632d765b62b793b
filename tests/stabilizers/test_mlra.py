"""What MLRA and its dense control claim, measured on drawn models."""

import math

import pytest
import torch

from spikeless.errors import UserError
from spikeless.nn.projection import parity_rank

SHAPES = pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
PROJECTIONS = ("query", "key", "value")
WIDTH, STD = 256, 0.02  # the family's own initialisation


def attention(tiny_run, build, *techniques: str, num_kv_heads: int = 4) -> torch.nn.Module:
    sizes = {"width": WIDTH, "num_layers": 1, "num_kv_heads": num_kv_heads}
    return build(tiny_run("llama", *techniques, **sizes)).blocks[0].attention


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@SHAPES
def test_parity_keeps_the_parameter_count(num_kv_heads, tiny_run, build):
    """Exactly for square projections; for grouped keys and values to half a rank."""
    dense = attention(tiny_run, build, num_kv_heads=num_kv_heads)
    factored = attention(tiny_run, build, "mlra", num_kv_heads=num_kv_heads)
    assert count(factored.query) == count(dense.query)
    assert factored.query.rank == WIDTH // 2
    for name in ("key", "value"):
        pair, matrix = getattr(factored, name), getattr(dense, name)
        assert abs(count(pair) - count(matrix)) <= (pair.d_in + pair.d_out) / 2


def test_the_output_projection_stays_dense(tiny_run, build):
    plain, factored = attention(tiny_run, build), attention(tiny_run, build, "mlra")
    assert torch.equal(plain.out.weight, factored.out.weight)


@SHAPES
@pytest.mark.parametrize("name", PROJECTIONS)
def test_product_keeps_the_std(name, num_kv_heads, tiny_run, build):
    merged = getattr(attention(tiny_run, build, "mlra", num_kv_heads=num_kv_heads), name).merged()
    assert merged.std().item() == pytest.approx(STD, rel=0.05)


@SHAPES
@pytest.mark.parametrize("name", PROJECTIONS)
def test_factor_starts_smaller(name, num_kv_heads, tiny_run, build):
    module = getattr(attention(tiny_run, build, "mlra(init=factor)", num_kv_heads=num_kv_heads), name)
    assert module.merged().std().item() == pytest.approx(math.sqrt(module.rank) * STD**2, rel=0.05)


@SHAPES
@pytest.mark.parametrize("name", PROJECTIONS)
def test_spectral_keeps_the_spectral_norm(name, num_kv_heads, tiny_run, build):
    merged = getattr(attention(tiny_run, build, "mlra(init=spectral)", num_kv_heads=num_kv_heads), name).merged()
    expected = STD * (math.sqrt(merged.shape[0]) + math.sqrt(merged.shape[1]))
    assert torch.linalg.matrix_norm(merged, 2).item() == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("mode", ["product", "factor"])
def test_the_other_modes_do_not_keep_the_spectral_norm(mode, tiny_run, build):
    merged = attention(tiny_run, build, f"mlra(init={mode})").query.merged()
    dense = STD * 2 * math.sqrt(WIDTH)
    assert abs(torch.linalg.matrix_norm(merged, 2).item() / dense - 1) > 0.1


@pytest.mark.parametrize(("rank", "expected"), [("8", (8, 8)), ("0.25", (64, 32)), ("parity", (128, 85))])
def test_the_rank_can_be_a_number_a_share_or_parity(rank, expected, tiny_run, build):
    made = attention(tiny_run, build, f"mlra(rank={rank})", num_kv_heads=2)
    assert (made.query.rank, made.key.rank) == expected
    assert parity_rank(256, 128) == 85


@pytest.mark.parametrize("rank", ["0", "-3", "257", "1.5", "0.0"])
def test_a_rank_out_of_range_is_refused(rank, tiny_run, build):
    with pytest.raises(UserError, match=r"rank=.* is out of range .*; use 1 to 256"):
        attention(tiny_run, build, f"mlra(rank={rank})")


def test_a_rank_beyond_the_grouped_projections_is_refused(tiny_run, build):
    with pytest.raises(UserError, match="use 1 to 64"):
        attention(tiny_run, build, "mlra(rank=100)", num_kv_heads=1)


@SHAPES
@pytest.mark.parametrize("rank", ["parity", "16", "0.5"])
@pytest.mark.parametrize("name", PROJECTIONS)
def test_the_dense_control_has_the_std_of_the_factored_product(name, rank, num_kv_heads, tiny_run, build):
    control = attention(tiny_run, build, f"dense_scale_matched(rank={rank})", num_kv_heads=num_kv_heads)
    factored = attention(tiny_run, build, f"mlra(rank={rank}, init=factor)", num_kv_heads=num_kv_heads)
    merged = getattr(factored, name).merged()
    assert getattr(control, name).weight.std().item() == pytest.approx(merged.std().item(), rel=0.06)


def test_the_dense_control_touches_nothing_else(tiny_run, build):
    plain, control = attention(tiny_run, build), attention(tiny_run, build, "dense_scale_matched")
    assert torch.equal(plain.out.weight, control.out.weight)
    assert plain.state_dict().keys() == control.state_dict().keys()


def test_the_paper_widths_shrink_as_derived():
    """With D = 768, r = 384, s = 0.02: the effective variance is r s^2 = 0.154 of the dense one."""
    assert parity_rank(768, 768) * 0.02**2 == pytest.approx(0.154, abs=5e-4)
