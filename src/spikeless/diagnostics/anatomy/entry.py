"""From token ids to the residual stream: the table, what its rows go through, and positions."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeless.diagnostics.anatomy.graph import ALIASES, Graph, Op
from spikeless.diagnostics.anatomy.matrices import linears_in
from spikeless.diagnostics.anatomy.norms import NormFacts, norm_facts
from spikeless.diagnostics.anatomy.stream import find_norms

__all__ = ["Entry", "entry_of"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What happens to a token before the first block.

    Attributes:
        name: the table's parameter.
        weight: the table [V, D].
        multiplier: factor on a row; None if it is not known.
        norm: that stands behind the table, before positions.
        function: rows [n, D] to the vectors that enter the stream, without positions; None if it is not known.
        positions: vectors that are added [T, D], or None.
        position_names: their parameters.
        words: what a row goes through.
    """

    name: str
    weight: Tensor
    multiplier: float | None = 1.0
    norm: NormFacts | None = None
    function: Callable[[Tensor], Tensor] | None = None
    positions: Tensor | None = None
    position_names: tuple[str, ...] = ()
    words: str = "none"


def entry_of(graph: Graph, ids: int, stream: int) -> Entry | None:
    """The way from token ids to the first block's input; None if no table is looked up with the ids.

    Args:
        graph: of the model's call, the blocks left out.
        ids, stream: nodes of the token ids and of the first block's input.
    """
    ours, others = None, []
    for op in graph.ops:
        if op.name == "embedding" and op.inputs[0] in graph.name_of:
            if ours is None and graph.source(op.inputs[1]) == graph.source(ids):
                ours = op
            else:
                others.append(op)
    if ours is None:
        return None
    weight, name = graph.tensors[ours.inputs[0]], graph.name_of[ours.inputs[0]]
    target = graph.source(stream)
    wanted = graph.ancestors([stream])
    norms = {norm.input: norm for norm in find_norms(graph)}
    at, multiplier, norm, words = ours.outputs[0], 1.0, None, []
    steps: list[Callable[[Tensor], Tensor]] = []
    positions, position_names = None, ()
    linears = {each.input: each for each in linears_in(graph, wanted)}
    while graph.source(at) != target:
        at = graph.source(at)
        if at in norms and norms[at].output in wanted:
            facts = norm_facts(
                norms[at], graph.tensors[at].shape[-1], graph.tensors[at], graph.tensors[norms[at].output]
            )
            if positions is None:
                norm, module = facts, norms[at].module
                assert module is not None
                steps.append(lambda rows, module=module: module(rows[None])[0])
                words.append(type(module).__name__)
            else:
                words.append(f"{type(norms[at].module).__name__} after positions")
                multiplier = float("nan")  # what a row becomes depends on its position
            at = graph.source(norms[at].output)
            continue
        if at in linears:
            matrix = linears[at].factor
            steps.append(lambda rows, matrix=matrix: rows @ matrix.matrix.to(rows.dtype).T)
            words.append(f"projection to {matrix.shape[0]}")
            at = linears[at].output
            continue
        readers = [
            op
            for op in graph.ops
            if op.name not in ALIASES
            and any(graph.source(each) == at for each in op.inputs)
            and op.outputs
            and op.outputs[0] in wanted
        ]
        through = next((op for op in readers if _is_gradient_share(graph, op, at)), None)
        if through is not None:
            at = through.outputs[0]
            continue
        op = next(iter(readers), None)
        rest = [] if op is None else [each for each in op.inputs if graph.source(each) != at]
        if op is not None and op.name == "mul" and (factor := _factor(graph, rest, op.scalars)) is not None:
            multiplier = multiplier * factor
            positions = None if positions is None else positions * factor
            steps.append(lambda rows, factor=factor: rows * factor)
            words.append(f"× {factor:.4g}" if factor == factor else "× an unknown factor")
        elif op is not None and op.name == "add" and len(rest) == 1 and at not in graph.ancestors(rest):
            added = graph.tensors[rest[0]].detach()
            positions = added if positions is None else positions + added
            leaves = graph.ancestors(rest)
            position_names += tuple(dict.fromkeys(graph.name_of[each] for each in leaves if each in graph.name_of))
        else:
            return Entry(
                name=name, weight=weight, multiplier=None, words="unknown", position_names=_tables(graph, others)
            )
        at = op.outputs[0]
    known = multiplier == multiplier
    return Entry(
        name=name,
        weight=weight,
        multiplier=multiplier if known else None,
        norm=norm,
        function=_compose(steps) if known else None,
        positions=None if positions is None else positions.reshape(-1, *positions.shape[-2:])[0],
        position_names=position_names or _tables(graph, others),
        words=", ".join(words) or "none",
    )


def _is_gradient_share(graph: Graph, op: Op, at: int) -> bool:
    """Whether this is e + share * (e - stop_gradient(e)), which is e in the forward pass."""
    rest = [each for each in op.inputs if graph.source(each) != at]
    if op.name != "add" or len(rest) != 1:
        return False
    made = graph.producer.get(graph.source(rest[0]))
    if made is not None and made.name == "mul" and len(made.inputs) == 1:
        made = graph.producer.get(graph.source(made.inputs[0]))
    return made is not None and made.name == "sub" and all(graph.source(each) == at for each in made.inputs)


def _tables(graph: Graph, others: list[Op]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(graph.name_of[op.inputs[0]] for op in others))


def _factor(graph: Graph, rest: list[int], scalars: tuple[float, ...]) -> float | None:
    """The number that is multiplied with; NaN if it has no value here; None if it is none."""
    if not rest:
        return scalars[0] if scalars else None
    other = graph.tensors[rest[0]]
    if other.numel() != 1:
        return None
    return float("nan") if other.is_meta else float(other)


def _compose(steps: list[Callable[[Tensor], Tensor]]) -> Callable[[Tensor], Tensor]:
    def function(rows: Tensor) -> Tensor:
        for step in steps:
            rows = step(rows)
        return rows

    return torch.no_grad()(function)
