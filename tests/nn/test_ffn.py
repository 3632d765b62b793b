import math

import pytest
import torch

from spikeless.errors import UserError
from spikeless.nn.ffn import MLP, GatedMLP

FORMULAS = {
    "relu": lambda x: x * (x > 0),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
}
X = 3 * torch.randn(2, 3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("activation", FORMULAS)
def test_mlp_is_the_formula(activation):
    module = MLP(activation=activation).build(16).double()
    expected = module.down(FORMULAS[activation](module.up(X)))
    torch.testing.assert_close(module(X), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", FORMULAS)
def test_gated_mlp_is_the_formula(activation):
    module = GatedMLP(activation=activation).build(16).double()
    expected = module.down(FORMULAS[activation](module.gate(X)) * module.up(X))
    torch.testing.assert_close(module(X), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("width", "inner"), [(128, 352), (768, 2048), (4096, 10944)])
def test_the_gated_width_has_about_the_parameters_of_four_times_d(width, inner):
    with torch.device("meta"):
        module = GatedMLP().build(width)
    assert module.up.out_features == inner
    assert inner % 32 == 0
    assert 0 <= 3 * inner - 8 * width < 3 * 32


def test_an_inner_width_can_be_given():
    assert MLP().build(16).up.out_features == 64
    assert MLP(width=10).build(16).up.out_features == 10
    assert GatedMLP(width=10).build(16).gate.out_features == 10


@pytest.mark.parametrize("part", [MLP, GatedMLP])
def test_an_inner_width_of_nothing_is_refused(part):
    with pytest.raises(UserError, match=r"ffn\.width=0 is out of range"):
        part(width=0).build(16)


@pytest.mark.parametrize("part", [MLP, GatedMLP])
@pytest.mark.parametrize("bias", [True, False])
def test_bias_is_on_all_matrices_or_none(part, bias):
    module = part(bias=bias).build(16)
    assert {(each.bias is not None) for each in module.children()} == {bias}
