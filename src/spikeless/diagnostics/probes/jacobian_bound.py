"""Bounds (15) and (20) with exact spectral norms, on the same tokens as the measured Jacobian."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeless.diagnostics.anatomy import BlockView
from spikeless.diagnostics.anatomy.activations import ACTIVATIONS
from spikeless.diagnostics.anatomy.norms import NormFacts
from spikeless.diagnostics.anatomy.stream import Normed
from spikeless.diagnostics.probes.shortcut import token_stds
from spikeless.roles import Role

__all__ = ["jacobian_bound"]


@dataclass(frozen=True, kw_only=True)
class JacobianBound:
    """A bound on the norm of a sub-layer's Jacobian, or why there is none.

    Attributes:
        value: None if none is claimed.
        note: what it assumes, or why it is not claimed.
    """

    value: float | None
    note: str = ""


def jacobian_bound(
    view: BlockView,
    index: int,
    *,
    norms: Mapping[str, NormFacts],
    spectral: Mapping[Role, float],
    heads: float | None,
    tokens: Tensor | None,
) -> JacobianBound:
    """1 + the product of the norms of what stands beside the shortcut [dimensionless].

    Feed-forward: 1 + max_t g ||W2|| L ||W1|| / sigma_t, with g the norm's largest gain, L the activation's Lipschitz
    constant and sigma_t the shortcut of token t. Gated: L max|up| ||W_gate|| + max|gate| ||W_up|| of the same token
    stands for L ||W1||, so it holds on these tokens only. Attention: 1 + g ||W_O|| ||J^Z|| / min_t sigma_t. A norm
    behind the sub-layer (sandwich) adds its gain over the std of what enters it. Parallel parts add up.

    Args:
        view: of one sequence.
        index: of the sub-layer.
        norms: facts of the norms, by module path.
        spectral: spectral norms of the sub-layer's matrices.
        heads: measured ||J^Z||.
        tokens: the tokens for which it is claimed; None for all.

    Reference: Takase et al., arXiv 2312.16903, equations 15 and 20; gain, Lipschitz constant, gated and sandwich
    forms are our definition.
    """
    segment, parts = view.segments[index], view.parts[index]
    if view.form == "post-norm":
        return JacobianBound(value=None, note="post-norm: no bound is claimed")
    if view.form == "unknown" or parts.unknown:
        return JacobianBound(value=None, note=f"not placed: {parts.unknown or 'the residual stream'}")
    if not parts.direct:
        return JacobianBound(value=None, note="something stands between the last matrix and the stream")
    chosen = slice(None) if tokens is None else tokens
    entered = token_stds(view.tensor(segment.start))[chosen]
    if not bool((entered > 0).all()):
        return JacobianBound(value=math.inf, note="a token whose vector is constant enters the norm")
    total = torch.zeros_like(entered, dtype=torch.float64)
    words = []
    for part, write in ((parts.attention, Role.ATTENTION_OUT), (parts.ffn, Role.FFN_DOWN)):
        if part is None:
            continue
        behind = _norm_behind(view, part.written, segment.post_norms)
        out = spectral[write] * parts.scales[part.written]
        inward = _norm_before(view, index, part, segment.norms)
        ahead = 1.0 / entered.double() if inward is not None else torch.ones_like(total)
        ahead = ahead * (norms[inward.path].largest_gain if inward is not None else 1.0)
        if behind is not None:
            after = token_stds(view.tensor(behind.input))[chosen].double()
            ahead_of_norm = norms[behind.path].largest_gain / after
        else:
            ahead_of_norm = torch.ones_like(total)
        if part is parts.attention:
            if heads is None:
                return JacobianBound(value=None, note="||J^Z|| was not measured")
            total = total + out * heads * ahead.max() * ahead_of_norm.max()
            words.append("attention: measured ||J^Z||")
            continue
        inner, word = _inner_bound(view, index, spectral, chosen)
        if inner is None:
            return JacobianBound(value=None, note=word)
        words.append(word)
        total = total + out * inner * ahead * ahead_of_norm
    return JacobianBound(value=1.0 + float(total.max()), note="; ".join(words))


def _inner_bound(
    view: BlockView, index: int, spectral: Mapping[Role, float], chosen: Tensor | slice
) -> tuple[Tensor | None, str]:
    """L ||W1|| per token, or what stands for it in a gated part."""
    ffn = view.parts[index].ffn
    assert ffn is not None
    constant = lipschitz(ffn.activation)
    if constant is None:
        return None, "the activation is none of those whose Lipschitz constant is known"
    tokens = view.entered.shape[0] * view.entered.shape[1]
    if ffn.up is None or ffn.gate is None:
        value = constant * spectral[Role.FFN_UP]
        every = torch.full((tokens,), value, dtype=torch.float64, device=view.entered.device)
        return every[chosen], f"{ffn.activation}: L = {constant:.4g}"
    up, gate = (view.tensor(node).detach().reshape(tokens, -1).abs().amax(1).double() for node in (ffn.up, ffn.gate))
    value = constant * up * spectral[Role.FFN_GATE] + gate * spectral[Role.FFN_UP]
    return value[chosen], f"gated {ffn.activation}: holds on the measured tokens"


def _norm_before(view: BlockView, index: int, part: object, norms: tuple[Normed, ...]) -> Normed | None:
    """The norm whose output a part reads."""
    if len(norms) <= 1:
        return norms[0] if norms else None
    before = view.graph.ancestors([part.written])  # type: ignore[attr-defined]
    return next(norm for norm in norms if norm.output in before)


def _norm_behind(view: BlockView, written: int, norms: tuple[Normed, ...]) -> Normed | None:
    """The norm that what a part writes goes through."""
    return next((norm for norm in norms if written in view.graph.ancestors([norm.input])), None)


@functools.cache
def lipschitz(activation: str) -> float | None:
    """Largest |slope| of an activation: ReLU 1, GELU 1.129, SiLU 1.100; None for one that is not known."""
    if activation not in ACTIVATIONS or activation == "relu2":  # whose slope has no bound
        return None
    x = torch.linspace(-8, 8, 160_001, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(ACTIVATIONS[activation](x).sum(), x)
    return float(slope.abs().max())
