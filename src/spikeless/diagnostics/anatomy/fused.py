"""Which outputs of a fused projection make values, keys, queries, gates: told by what the result depends on."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from spikeless.diagnostics.anatomy import BlockView
from spikeless.diagnostics.anatomy.matrices import Matrix, with_rows
from spikeless.roles import Role

__all__ = ["fused_rows"]


def fused_rows(one: BlockView, two: BlockView, index: int) -> Mapping[Role, Matrix]:
    """A sub-layer's matrices with fused ones taken apart.

    With one token the softmax is over one key, so the heads depend on the values alone. With two tokens, the second's
    heads depend on the first's key and value but not on its query. An up projection is what reaches its factor of the
    gated product; the rest is the gate.

    Args:
        one, two: the block's calls with one token and with two, gradients on.
        index: of the sub-layer.
    """
    parts = two.parts[index]
    found: dict[Role, Matrix] = {}
    for part in (parts.attention, parts.ffn):
        if part is not None:
            found |= part.matrices
    attention = parts.attention
    if attention is not None and attention.fused and Role.VALUE in found:
        whole = found.pop(Role.VALUE)
        alone = one.parts[index].attention
        assert alone is not None
        value = _moved(one.tensor(alone.heads), one.tensor(alone.projected), token=0)
        first = _moved(two.tensor(attention.heads), two.tensor(attention.projected), token=0, last=True)
        if len(value) == whole.shape[0]:
            key, query = first & ~value, ~first & ~value
            for role, mask in ((Role.QUERY, query), (Role.KEY, key), (Role.VALUE, value)):
                if bool(mask.any()):
                    found[role] = with_rows(whole, mask.nonzero()[:, 0], role)
    ffn = parts.ffn
    if ffn is not None and ffn.fused and ffn.up is not None:
        whole = found[Role.FFN_UP]
        up = _moved(two.tensor(ffn.up), two.tensor(ffn.before), token=0)
        found[Role.FFN_UP] = with_rows(whole, up.nonzero()[:, 0], Role.FFN_UP)
        found[Role.FFN_GATE] = replace(with_rows(whole, (~up).nonzero()[:, 0], Role.FFN_GATE))
    return found


def _moved(result: Tensor, projected: Tensor, *, token: int, last: bool = False) -> Tensor:
    """Which channels of one token's projection a result depends on, or its last token alone [channels]."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(result.shape, generator=generator).to(result)
    if last:
        keep = torch.zeros_like(direction)
        keep[_last_token(result)] = 1.0
        direction = direction * keep
    (gradient,) = torch.autograd.grad(result, projected, direction, retain_graph=True)
    return gradient.reshape(-1, gradient.shape[-1])[token] != 0


def _last_token(result: Tensor) -> tuple[slice | int, ...]:
    """Index of the last of two tokens: the dimension of size two that stands before heads and channels."""
    dim = next(dim for dim in range(result.dim()) if result.shape[dim] == 2 and dim < result.dim() - 1)
    return (*(slice(None),) * dim, 1)
