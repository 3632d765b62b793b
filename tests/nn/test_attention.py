import math

import pytest
import torch

from spikeless.nn.attention import Cache, SelfAttention
from spikeless.nn.positions import Rotary

WIDTH, HEADS, LENGTH = 16, 4, 7


def attention(num_kv_heads: int, bias: bool = True) -> torch.nn.Module:
    return SelfAttention(bias=bias).build(WIDTH, HEADS, num_kv_heads).double()


def brute_force(module: torch.nn.Module, x: torch.Tensor, num_kv_heads: int) -> torch.Tensor:
    """softmax(q·k / sqrt(K)) v, one query at a time; query heads share a key/value head in runs of H/G."""
    head = WIDTH // HEADS
    out = torch.zeros_like(x)
    for b in range(x.shape[0]):
        q, k, v = (layer(x[b]) for layer in (module.query, module.key, module.value))
        for h in range(HEADS):
            g = h // (HEADS // num_kv_heads)
            for t in range(x.shape[1]):
                query = q[t, h * head : (h + 1) * head]
                keys, values = (each[: t + 1, g * head : (g + 1) * head] for each in (k, v))
                weights = torch.softmax(keys @ query / math.sqrt(head), dim=0)
                out[b, t, h * head : (h + 1) * head] = weights @ values
    return module.out(out)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
def test_attention_is_the_formula(num_kv_heads, bias):
    module = attention(num_kv_heads, bias)
    x = 3 * torch.randn(2, LENGTH, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(module(x, None, None), brute_force(module, x, num_kv_heads), rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_kv_heads", [4, 1])
@pytest.mark.parametrize("position", range(LENGTH))
def test_attention_looks_back_only(position, num_kv_heads):
    """By gradients: what a position writes depends on every earlier position (≠ 0) and on no later one (= 0)."""
    x = torch.randn(1, LENGTH, WIDTH, dtype=torch.float64, requires_grad=True)
    attention(num_kv_heads)(x, None, None)[0, position].square().sum().backward()
    influence = x.grad[0].abs().amax(dim=1)
    assert (influence[: position + 1] > 0).all()
    assert (influence[position + 1 :] == 0).all()


def test_sequences_of_a_batch_do_not_mix():
    x = torch.randn(2, LENGTH, WIDTH, dtype=torch.float64, requires_grad=True)
    attention(4)(x, None, None)[0].square().sum().backward()
    assert (x.grad[1] == 0).all()


@pytest.mark.parametrize("parts", [[1] * LENGTH, [3, 4], [3, 1, 3], [1, 6]])
@pytest.mark.parametrize("num_kv_heads", [4, 2])
def test_a_cache_continues_the_sequence(parts, num_kv_heads):
    module, rotary, cache = attention(num_kv_heads), Rotary().build(LENGTH, WIDTH, WIDTH // HEADS), Cache()
    x = torch.randn(2, LENGTH, WIDTH, dtype=torch.float64)
    whole = module(x, rotary.rotation(torch.arange(LENGTH)), None)
    pieces = []
    for part in x.split(parts, dim=1):
        positions = torch.arange(cache.length, cache.length + part.shape[1])
        pieces.append(module(part, rotary.rotation(positions), cache))
    assert cache.length == LENGTH
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=1e-12)
