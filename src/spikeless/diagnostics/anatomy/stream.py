"""The residual stream inside one block: where sub-layers read from it and add to it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch

from spikeless.diagnostics.anatomy.graph import ALIASES, Graph

__all__ = ["Form", "Normed", "Segment", "find_norms", "segments_of"]

Form = Literal["pre-norm", "sandwich", "parallel", "post-norm", "unknown"]

NORMALISING = frozenset(["native_layer_norm", "_fused_rms_norm", "rms_norm", "rsqrt", "var_mean", "linalg_vector_norm"])
PRODUCTS = frozenset(["mm", "addmm", "bmm", "baddbmm", "convolution"])


@dataclass(frozen=True, kw_only=True)
class Normed:
    """A norm on the stream.

    Attributes:
        path: of the module, or what stands for it: the block's path and a number.
        module: None if it is a function.
        input, output: nodes.
    """

    path: str
    module: torch.nn.Module | None
    input: int
    output: int


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A sub-layer: the map from one cut of the stream to the next.

    Attributes:
        start, end: nodes of the stream [B, T, D]; every path inside the block leads through them.
        contributions: nodes that are added on the way.
        norms: those that read `start`; empty if it is read without.
        post_norms: those whose outputs are the contributions (sandwich), or `end` (post-norm).
    """

    start: int
    end: int
    contributions: tuple[int, ...]
    norms: tuple[Normed, ...]
    post_norms: tuple[Normed, ...]


def find_norms(graph: Graph) -> list[Normed]:
    """Calls of modules that normalise hidden states over the width and hold no matrix product."""
    found: list[Normed] = []
    for call in graph.calls:
        if call.input is None or call.output is None:
            continue
        if graph.tensors[call.input].shape != graph.tensors[call.output].shape or call.input == call.output:
            continue
        names = {op.name for op in graph.ops[call.first_op : call.end_op]}
        if names & NORMALISING and not names & PRODUCTS and not any(call.path.startswith(f"{n.path}.") for n in found):
            found.append(Normed(path=call.path, module=call.module, input=graph.source(call.input), output=call.output))
    return found


def segments_of(graph: Graph, entered: int, left: int, path: str = "") -> tuple[Form, list[Segment]]:
    """The sub-layers of a block, from the operations of one call.

    Args:
        graph: of the call.
        entered, left: nodes of the block's input and output.
        path: of the block, in the names of norms that are no modules.

    Returns:
        The form, and the sub-layers in order; ("unknown", []) if input and output are not joined by additions alone.
    """
    norms = find_norms(graph)
    points, adds = _follow(graph, entered)
    last = points.get(graph.source(left), points.get(left))
    if last is not None and last > 0:
        form, segments = _additive(graph, points, adds, last, norms, entered, left)
        segments = [_with_function(graph, each, f"{path}#{n}") for n, each in enumerate(segments)]
        lost = torch.is_grad_enabled() and any(each.start in graph.overwritten for each in segments)
        return ("unknown", []) if lost else (form, segments)
    return _normed_after(graph, entered, left, norms)


def _with_function(graph: Graph, segment: Segment, path: str) -> Segment:
    """The sub-layer with the norm that reads the stream, if that is a function and no module."""
    if segment.norms:
        return segment
    stop = frozenset([segment.start])
    branch = graph.ancestors(segment.contributions, stop)
    products = [op for op in graph.ops_within(branch) if op.name in PRODUCTS]
    if not products:
        return segment
    entering = graph.source(products[0].inputs[-2])
    before = graph.ancestors([entering], stop)
    names = {op.name for op in graph.ops_within(before) if segment.start in graph.ancestors(op.inputs, stop)}
    if not names & NORMALISING or names & PRODUCTS:
        return segment
    return replace(segment, norms=(Normed(path=path, module=None, input=segment.start, output=entering),))


def _follow(graph: Graph, start: int) -> tuple[dict[int, int], list[tuple[int, int, int]]]:
    """Nodes on the stream by the number of additions on the way, and the additions (before, contribution, after)."""
    points: dict[int, int] = {start: 0}
    adds: list[tuple[int, int, int]] = []
    for op in graph.ops:
        if not op.outputs or op.outputs[0] in points:
            continue
        if op.name in ALIASES and op.inputs and op.inputs[0] in points:
            points[op.outputs[0]] = points[op.inputs[0]]
        elif op.name == "add" and len(op.inputs) == 2 and (op.inputs[0] in points) != (op.inputs[1] in points):
            base, other = op.inputs if op.inputs[0] in points else op.inputs[::-1]
            if graph.tensors[op.outputs[0]].numel() == graph.tensors[base].numel() and not _scaled(op.scalars):
                adds.append((points[base], other, op.outputs[0]))
                points[op.outputs[0]] = len(adds)
    return points, adds


def _scaled(scalars: Sequence[float]) -> bool:
    return any(each != 1.0 for each in scalars)


def _additive(
    graph: Graph,
    points: dict[int, int],
    adds: list[tuple[int, int, int]],
    last: int,
    norms: list[Normed],
    entered: int,
    left: int,
) -> tuple[Form, list[Segment]]:
    path = [last]
    while path[-1]:
        path.append(adds[path[-1] - 1][0])
    path.reverse()
    read = _read_points(graph, points)
    cuts = [point for point in path[:-1] if point in read or point == 0] + [last]
    node_of = {0: entered, **{number: add[2] for number, add in enumerate(adds, start=1)}}
    node_of[last] = left
    segments = []
    for start, end in pairwise(cuts):
        steps = path[path.index(start) + 1 : path.index(end) + 1]
        contributions = tuple(adds[step - 1][1] for step in steps)
        segments.append(
            Segment(
                start=node_of[start],
                end=node_of[end],
                contributions=contributions,
                norms=tuple(each for each in norms if points.get(each.input) == start),
                post_norms=tuple(
                    each
                    for each in norms
                    if any(graph.source(each.output) == graph.source(given) for given in contributions)
                    and each.input not in points
                ),
            )
        )
    if any(segment.post_norms for segment in segments):
        return "sandwich", segments
    return ("parallel" if len(segments) == 1 else "pre-norm"), segments


def _read_points(graph: Graph, points: dict[int, int]) -> set[int]:
    """Points that something else than the stream itself reads."""
    read = set()
    for op in graph.ops:
        on_stream = [each for each in op.inputs if each in points]
        if on_stream and not (op.outputs and op.outputs[0] in points):
            read |= {points[each] for each in on_stream}
    return read


def _normed_after(graph: Graph, entered: int, left: int, norms: list[Normed]) -> tuple[Form, list[Segment]]:
    """Post-norm: each sum goes through a norm, and the norm's output is the stream."""
    segments: list[Segment] = []
    start, done = entered, {graph.source(left), left}
    while start not in done:
        points, adds = _follow(graph, start)
        after = [each for each in norms if points.get(each.input, 0) > 0]
        if not after:
            return "unknown", []
        norm = after[0]
        end = left if graph.source(norm.output) in done else norm.output
        segments.append(
            Segment(
                start=start,
                end=end,
                contributions=tuple(add[1] for add in adds[: points[norm.input]]),
                norms=(),
                post_norms=(norm,),
            )
        )
        start = end
    return "post-norm", segments
