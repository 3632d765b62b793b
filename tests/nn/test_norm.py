import pytest
import torch

from spikeless.nn.norm import LayerNorm, RMSNorm


@pytest.fixture
def x():
    return 1e-2 * torch.randn(4, 32, dtype=torch.float64) + 1e-2


def test_layer_norm_is_the_formula(x):
    module = LayerNorm(eps=1e-4).build(32).double()
    torch.nn.init.normal_(module.weight)
    torch.nn.init.normal_(module.bias)
    variance = x.var(dim=-1, correction=0, keepdim=True)
    expected = module.weight * (x - x.mean(dim=-1, keepdim=True)) / torch.sqrt(variance + 1e-4) + module.bias
    torch.testing.assert_close(module(x), expected, rtol=1e-12, atol=1e-12)


def test_rms_norm_is_the_formula(x):
    module = RMSNorm(eps=1e-4).build(32).double()
    torch.nn.init.normal_(module.weight)
    expected = module.weight * x / torch.sqrt(x.square().mean(dim=-1, keepdim=True) + 1e-4)
    torch.testing.assert_close(module(x), expected, rtol=1e-12, atol=1e-12)


def test_layer_norm_without_bias():
    assert [name for name, _ in LayerNorm(bias=False).build(4).named_parameters()] == ["weight"]
