import pytest
import torch

from spikeless.errors import UserError
from spikeless.nn.embedding import TokenEmbedding
from spikeless.nn.norm import LayerNorm, RMSNorm

TOKENS = torch.tensor([[1, 4, 1], [0, 2, 4]])
TRANSFORMS = pytest.mark.parametrize("norm", [None, LayerNorm(), RMSNorm()], ids=["plain", "layer", "rms"])


def embedding(**fields: object) -> torch.nn.Module:
    module = TokenEmbedding(**fields).build(5, 8).double()
    torch.nn.init.normal_(module.weight)
    return module


def brute_force(table: torch.Tensor, multiplier: float, norm: object) -> torch.Tensor:
    x = multiplier * table[TOKENS]
    if isinstance(norm, LayerNorm):
        centred = x - x.mean(dim=-1, keepdim=True)
        return centred / torch.sqrt(centred.square().mean(dim=-1, keepdim=True) + norm.eps)
    return x / torch.sqrt(x.square().mean(dim=-1, keepdim=True) + norm.eps) if norm else x


@TRANSFORMS
@pytest.mark.parametrize("multiplier", [1.0, 8.0])
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_the_vectors_are_the_formula_whatever_the_gradient_share(share, multiplier, norm):
    module = embedding(multiplier=multiplier, gradient_share=share, norm=norm)
    expected = brute_force(module.weight, multiplier, norm)
    torch.testing.assert_close(module(TOKENS), expected, rtol=1e-12, atol=1e-12)


@TRANSFORMS
@pytest.mark.parametrize("multiplier", [1.0, 8.0])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.1, 0.0])
def test_the_table_gets_its_share_of_the_gradient(share, multiplier, norm):
    module = embedding(multiplier=multiplier, gradient_share=share, norm=norm)
    table = module.weight.detach().clone().requires_grad_()
    probe = torch.randn(2, 3, 8, dtype=torch.float64)
    (module(TOKENS) * probe).sum().backward()
    (brute_force(table, multiplier, norm) * probe).sum().backward()
    torch.testing.assert_close(module.weight.grad, share * table.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("norm", [None, LayerNorm()])
def test_transform_takes_the_whole_table(norm):
    """Diagnostics read the effective vectors of all rows at once."""
    module = embedding(multiplier=3.0, norm=norm)
    assert torch.equal(module.transform(module.weight)[TOKENS], module(TOKENS))
    assert module.rescales_only == (norm is None)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(UserError, match="use 0 to 1"):
        TokenEmbedding(gradient_share=share)
