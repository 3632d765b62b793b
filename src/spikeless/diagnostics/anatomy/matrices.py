"""Matrices of a sub-layer: which weight multiplies which activation, in which layout, and what for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spikeless.diagnostics.anatomy.graph import ALIASES, Graph, Op
from spikeless.roles import Role

__all__ = ["SAME", "Factor", "Linear", "Matrix", "chain_to", "finals", "linears_in", "with_rows"]

LAYOUT = frozenset(["t", "transpose", "permute", "expand"])
SAME = ALIASES | {"expand"}


@dataclass(frozen=True, kw_only=True)
class Factor:
    """A weight matrix as it is used.

    Attributes:
        name: of the parameter, or of those that it is computed from.
        weight: as stored: [d_out, d_in], or [d_in, d_out] where `transposed`.
        transposed: the input's dimension comes first.
        rows: the outputs that are meant, where several matrices are fused; None means all.
        stored: the weight is the parameter itself, not computed from it.
    """

    name: str
    weight: Tensor
    transposed: bool
    rows: Tensor | None = None
    stored: bool = True

    @property
    def matrix(self) -> Tensor:
        """[d_out, d_in], a view where all outputs are meant."""
        matrix = self.weight.detach().T if self.transposed else self.weight.detach()
        return matrix if self.rows is None else matrix[self.rows]

    @property
    def shape(self) -> tuple[int, int]:
        """d_out and d_in."""
        d_out, d_in = self.weight.shape[::-1] if self.transposed else self.weight.shape
        return (d_out if self.rows is None else len(self.rows)), d_in


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A linear map with a role: one weight, or a product of low-rank factors, the first applied first."""

    role: Role
    factors: tuple[Factor, ...]

    @property
    def name(self) -> str:
        """As a product is written: the last factor first."""
        return " @ ".join(factor.name for factor in reversed(self.factors))

    @property
    def shape(self) -> tuple[int, int]:
        """d_out and d_in."""
        return self.factors[-1].shape[0], self.factors[0].shape[1]

    def dense(self) -> Tensor:
        """[d_out, d_in], at least fp32."""
        product = None
        for factor in self.factors:
            matrix = factor.matrix.to(torch.promote_types(factor.weight.dtype, torch.float32))
            product = matrix if product is None else matrix @ product
        assert product is not None
        return product

    def apply(self, x: Tensor) -> Tensor:
        """[..., d_in] -> [..., d_out]."""
        for factor in self.factors:
            x = x @ factor.matrix.to(x.dtype).T
        return x

    def apply_transposed(self, y: Tensor) -> Tensor:
        """[..., d_out] -> [..., d_in]."""
        for factor in reversed(self.factors):
            y = y @ factor.matrix.to(y.dtype)
        return y


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A product of activations with a weight.

    Attributes:
        factor: the weight.
        input, output: nodes, in the shape in which they are elsewhere.
    """

    factor: Factor
    input: int
    output: int


def linears_in(graph: Graph, nodes: set[int]) -> list[Linear]:
    """The products with weights among the operations that made these nodes, in order."""
    found = []
    for op in graph.ops_within(nodes):
        if op.name not in ("mm", "addmm", "bmm", "baddbmm"):
            continue
        left, right = op.inputs[-2:]
        factor = _weight_at(graph, right)
        if factor is not None:
            found.append(Linear(factor=factor, input=graph.source(left, SAME), output=op.outputs[0]))
    return found


def _weight_at(graph: Graph, node: int) -> Factor | None:
    """The weight behind the right operand [d_in, d_out] of a product."""
    turned, at = True, node
    while at not in graph.name_of and (op := graph.producer.get(at)) is not None:
        if op.name in LAYOUT and op.name != "expand" and _swaps(graph, op):
            turned = not turned
        elif op.name not in SAME:
            break
        at = op.inputs[0]
    if at in graph.name_of:
        weight = graph.tensors[at]
        if weight.dim() != 2:
            return None
        return Factor(name=graph.name_of[at], weight=weight, transposed=turned)
    leaves = [each for each in graph.ancestors([node]) if each not in graph.producer]
    names = [graph.name_of[each] for each in leaves if each in graph.name_of]
    if not names or len(names) < len(leaves):
        return None
    value = graph.tensors[node]
    value = value[0] if value.dim() == 3 else value
    return Factor(name="+".join(dict.fromkeys(names)), weight=value, transposed=True, stored=False)


def _swaps(graph: Graph, op: Op) -> bool:
    """Whether an operation swaps the last two dimensions."""
    before, after = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    return before.dim() >= 2 and before.shape[-1] == after.shape[-2] and before.stride()[-1:] == after.stride()[-2:-1]


def finals(graph: Graph, linears: Sequence[Linear], start: int) -> list[Linear]:
    """Those whose output reaches no other one of them."""
    before = [graph.ancestors([each.input], frozenset([start])) for each in linears]
    return [each for each in linears if not any(each.output in nodes for nodes in before)]


def chain_to(graph: Graph, last: Linear, linears: Sequence[Linear], role: Role) -> tuple[Matrix, Linear]:
    """The product that ends with a linear, as far back as nothing stands between; and its first linear."""
    factors, first = [last.factor], last
    while (previous := next((e for e in linears if graph.source(e.output) == graph.source(first.input)), None)) and (
        previous.factor.shape[0] == first.factor.shape[1]
    ):
        factors.insert(0, previous.factor)
        first = previous
    return Matrix(role=role, factors=tuple(factors)), first


def with_rows(matrix: Matrix, rows: Tensor, role: Role) -> Matrix:
    """The part of a fused matrix that makes some of its outputs."""
    *before, last = matrix.factors
    return Matrix(role=role, factors=(*before, replace(last, rows=rows)))
