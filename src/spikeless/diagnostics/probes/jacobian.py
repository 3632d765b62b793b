"""Measured spectral norms of sub-layers' Jacobians at real activations."""

from dataclasses import dataclass

import torch
from torch import Tensor

from spikeless.diagnostics.anatomy import BlockView
from spikeless.diagnostics.probes._lanczos import SingularValue, largest_singular_value

__all__ = ["jacobian"]

TOLERANCE = 1e-2  # relative residual; the value's own error is of its square
MOST_STEPS = 120
SAMPLED_TOKENS = 64


@dataclass(frozen=True, kw_only=True)
class JacobianNorms:
    """Norms of one sub-layer.

    Attributes:
        sub_layer: of d(end)/d(start), the shortcut included; the largest over the sampled tokens if token-wise.
        heads: of J^Z, the concatenated heads with respect to the norm's output; None without attention.
        tokens: places of the sampled tokens [n], or None if the map is that of the whole sequence.
        converged: whether Lanczos reached its tolerance.
    """

    sub_layer: float
    heads: float | None
    tokens: Tensor | None
    converged: bool


def jacobian(view: BlockView, index: int, *, sampled: int = SAMPLED_TOKENS) -> JacobianNorms:
    """Spectral norm of a sub-layer's full Jacobian: d y / d x' or d x' / d x [dimensionless].

    Feed-forward sub-layers are maps of single tokens: the largest norm over sampled tokens. Sub-layers that mix tokens
    are maps of the whole sequence. J v and J^T u come from double vector-Jacobian products, so no Jacobian is formed
    and no forward-mode derivative is needed.

    Args:
        view: of one sequence [1, T, D], computed with gradients on, parameters' off, attention in plain math.
        index: of the sub-layer.
        sampled: tokens to sample, evenly over the sequence, if the map is token-wise.

    Reference: Takase et al., arXiv 2312.16903, equations 15 and 20, whose left-hand sides these are.
    """
    segment, parts = view.segments[index], view.parts[index]
    start, end = view.tensor(segment.start), view.tensor(segment.end)
    products = _Products(start, end)
    tokens = None
    if parts.kind == "ffn":
        length = start.shape[-2]
        tokens = torch.linspace(0, length - 1, min(sampled, length)).round().long().unique().to(start.device)
        tokens = tokens if products.is_token_wise(tokens) else None
    whole = products.norm(tokens)
    heads = None
    if parts.attention is not None and view.form != "unknown":
        z = view.tensor(parts.attention.heads)
        entered = _input_of(view, index, z)
        heads = _Products(entered, z).norm(None)
    return JacobianNorms(
        sub_layer=whole.largest,
        heads=None if heads is None else heads.largest,
        tokens=tokens,
        converged=whole.converged and (heads is None or heads.converged),
    )


def _input_of(view: BlockView, index: int, z: Tensor) -> Tensor:
    """The norm's output from which the heads are computed."""
    given = [view.tensor(node) for node in view.parts[index].inputs]
    gradients = torch.autograd.grad(z.sum(), given, retain_graph=True, allow_unused=True)
    return next(each for each, gradient in zip(given, gradients, strict=True) if gradient is not None)


class _Products:
    """Products with the Jacobian of one tensor with respect to another, from one graph.

    J^T u is a vector-Jacobian product; it is linear in u, so its own vector-Jacobian product is J v.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y
        self._dummy = torch.zeros_like(y, requires_grad=True)
        (self._pulled,) = torch.autograd.grad(y, x, self._dummy, create_graph=True)

    def push(self, v: Tensor) -> Tensor:
        """J v."""
        if not self._pulled.requires_grad:
            return torch.zeros_like(self.y)
        (result,) = torch.autograd.grad(self._pulled, self._dummy, v, retain_graph=True)
        return result

    def pull(self, u: Tensor) -> Tensor:
        """J^T u."""
        (result,) = torch.autograd.grad(self.y, self.x, u, retain_graph=True)
        return result

    def is_token_wise(self, tokens: Tensor) -> bool:
        """Whether a change of one token changes no other one."""
        at = tokens[len(tokens) // 2]
        vector = torch.zeros_like(self.x).flatten(0, -2)
        vector[at] = torch.linspace(-1, 1, vector.shape[-1], dtype=vector.dtype, device=vector.device)
        moved = self.push(vector.view_as(self.x)).flatten(0, -2)
        others = torch.cat((moved[:at], moved[at + 1 :]))
        return not others.numel() or bool(others.abs().max() == 0)

    def norm(self, tokens: Tensor | None) -> SingularValue:
        """Spectral norm of the whole map, or of each token's."""
        if tokens is None:
            size = self.x.numel()
            return largest_singular_value(
                lambda v: self.push(v.view_as(self.x)).reshape(1, -1),
                lambda u: self.pull(u.view_as(self.y)).reshape(1, -1),
                batch=1,
                size=size,
                like=self.x,
                tolerance=TOLERANCE,
                most=MOST_STEPS,
            )
        return largest_singular_value(
            lambda v: self._at(tokens, self.push(self._spread(tokens, v, self.x))),
            lambda u: self._at(tokens, self.pull(self._spread(tokens, u, self.y))),
            batch=len(tokens),
            size=self.x.shape[-1],
            like=self.x,
            tolerance=TOLERANCE,
            most=MOST_STEPS,
        )

    @staticmethod
    def _spread(tokens: Tensor, rows: Tensor, like: Tensor) -> Tensor:
        whole = torch.zeros_like(like).flatten(0, -2)
        whole[tokens] = rows
        return whole.view_as(like)

    @staticmethod
    def _at(tokens: Tensor, whole: Tensor) -> Tensor:
        return whole.flatten(0, -2)[tokens]
