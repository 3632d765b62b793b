"""What a sub-layer is made of: attention or feed-forward, its matrices by role, the nodes that measurements need."""

from dataclasses import dataclass, replace

from torch import Tensor

from spikeless.diagnostics.anatomy.activations import recognise
from spikeless.diagnostics.anatomy.graph import ALIASES, PIECES, Graph, Op
from spikeless.diagnostics.anatomy.matrices import SAME, Linear, Matrix, chain_to, finals, linears_in
from spikeless.diagnostics.anatomy.stream import NORMALISING, PRODUCTS, Segment
from spikeless.roles import Role

__all__ = ["AttentionParts", "FeedForwardParts", "Parts", "parts_of", "without_matrices"]

NAMES = {
    frozenset({"gelu"}): "gelu",
    frozenset({"silu"}): "silu",
    frozenset({"relu"}): "relu",
    frozenset({"relu", "pow"}): "relu2",
    frozenset({"tanh"}): "gelu_tanh",
    frozenset({"tanh", "pow"}): "gelu_tanh",
    frozenset({"erf"}): "gelu",
    frozenset({"sigmoid"}): "silu",
}
NONLINEAR = frozenset(
    (
        "gelu",
        "silu",
        "relu",
        "pow",
        "tanh",
        "erf",
        "sigmoid",
        "exp",
        "hardtanh",
        "clamp",
        "clamp_min",
        "leaky_relu",
        "elu",
        "mish",
    )
)


@dataclass(frozen=True, kw_only=True)
class AttentionParts:
    """Attention: softmax over keys, concatenated heads, output matrix.

    Attributes:
        matrices: query, key, value and attention_out, as far as they are apart; a fused one stands under "value".
        fused: the value matrix makes queries or keys as well.
        normed: queries or keys go through a norm.
        projected: node of the value matrix's output.
        heads: node of the concatenated heads Z, the input of the output matrix.
        written: node of the output matrix's output.
        logits, weights: nodes of the softmax's input and output.
    """

    matrices: dict[Role, Matrix]
    fused: bool
    normed: bool
    projected: int
    heads: int
    written: int
    logits: int
    weights: int


@dataclass(frozen=True, kw_only=True)
class FeedForwardParts:
    """A feed-forward part: one or two matrices in, an activation, one matrix out.

    Attributes:
        matrices: ffn_up, ffn_down, and ffn_gate where it is gated.
        gated: the activation is multiplied by a second projection.
        fused: gate and up are one matrix, which stands under ffn_up.
        activation: its name, or "" if it is none of those that we know.
        entered: nodes that its first matrices multiply.
        before: node that enters the activation (where not fused).
        up: node of the second projection, if gated.
        gate: node of the activation's output, if gated.
        inner: node of the output matrix's input.
        written: node of the output matrix's output.
    """

    matrices: dict[Role, Matrix]
    gated: bool
    fused: bool
    activation: str
    entered: tuple[int, ...]
    before: int
    up: int | None
    gate: int | None
    inner: int
    written: int


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A sub-layer's parts; either is None where it was not found.

    Attributes:
        inputs: nodes of the norms' outputs, or of the stream where no norm reads it.
        direct: the norms' outputs reach the first matrices of a feed-forward part, and what is written reaches the
            stream, unchanged but for `scales` and output norms.
        scales: factors between the output matrices and the stream, by the node of what they write.
        unknown: what could not be placed, in words.
    """

    attention: AttentionParts | None
    ffn: FeedForwardParts | None
    inputs: tuple[int, ...]
    direct: bool
    scales: dict[int, float]
    unknown: str = ""

    @property
    def kind(self) -> str:
        """attention, ffn, parallel or unknown."""
        if self.attention and self.ffn:
            return "parallel"
        if self.attention and self.attention.matrices:
            return "attention"
        return "ffn" if self.ffn else "unknown"


def without_matrices(parts: Parts) -> Parts:
    """A sub-layer of which no more is known than where its softmax is."""
    attention = None if parts.attention is None else replace(parts.attention, matrices={})
    return replace(parts, attention=attention, ffn=None, direct=False, unknown=parts.unknown or "its sub-layers")


def parts_of(graph: Graph, segment: Segment) -> Parts:
    """The parts of a sub-layer, from the operations between two cuts of the stream."""
    stop = frozenset([segment.start])
    branch = graph.ancestors(segment.contributions, stop)
    linears = linears_in(graph, branch)
    softmaxes = [op for op in graph.ops_within(branch) if _is_attention_softmax(graph, op)]
    inputs = tuple(graph.source(norm.output) for norm in segment.norms) or (segment.start,)
    attention, used, words = None, set[int](), []
    if softmaxes:
        attention, used = _attention(graph, linears, softmaxes[0], segment.start)
        if attention is None:
            words.append("the attention's matrices")
    rest = [each for each in linears if each.output not in used]
    ffn = _feed_forward(graph, rest, segment.start) if rest and (attention or not softmaxes) else None
    if rest and ffn is None:
        words.append("matrices of " + ", ".join(dict.fromkeys(each.factor.name for each in rest[:3])))
    if not linears:
        words.append("any matrix")
    written = [part.written for part in (attention, ffn) if part is not None]
    direct, scales = _way_out(graph, segment, written)
    direct = direct and (ffn is None or all(each in inputs for each in ffn.entered))
    return Parts(attention=attention, ffn=ffn, inputs=inputs, direct=direct, scales=scales, unknown=" and ".join(words))


def _is_attention_softmax(graph: Graph, op: Op) -> bool:
    if op.name not in ("_softmax", "_safe_softmax"):
        return False
    shape = graph.tensors[op.outputs[0]].shape
    return len(shape) >= 3


def _attention(graph: Graph, linears: list[Linear], softmax: Op, start: int) -> tuple[AttentionParts | None, set[int]]:
    stop, weights = frozenset([start]), softmax.outputs[0]
    into = graph.ancestors(softmax.inputs, stop)
    asked = [each for each in linears if each.output in into]
    after = [each for each in linears if weights in graph.ancestors([each.input], stop)]
    mixing = next((op for op in graph.ops if op.name in ("bmm", "baddbmm") and _uses(graph, op, weights)), None)
    scoring = [op for op in graph.ops_within(into) if op.name in ("bmm", "baddbmm")]
    ends = finals(graph, after, start)
    if mixing is None or not scoring or len(ends) != 1:
        return None, set()
    other = next(each for each in mixing.inputs[-2:] if graph.source(each, SAME) != weights)
    valued = [each for each in linears if each.output in graph.ancestors([other], stop)]
    values = finals(graph, valued, start)
    out, first_out = chain_to(graph, ends[0], after, Role.ATTENTION_OUT)
    if len(out.factors) < len(after):  # more than the way to one output matrix
        return None, set()
    matrices = {Role.ATTENTION_OUT: out}
    fused = bool(values) and values[0].output in {each.output for each in asked}
    if len(values) == 1:
        matrices[Role.VALUE], _ = chain_to(graph, values[0], valued, Role.VALUE)
    if not fused:
        for role, operand in zip((Role.QUERY, Role.KEY), scoring[-1].inputs[-2:], strict=True):
            reaching = [each for each in asked if each.output in graph.ancestors([operand], stop)]
            last = finals(graph, reaching, start)
            if len(last) == 1:
                matrices[role], _ = chain_to(graph, last[0], reaching, role)
    used = {each.output for each in (*asked, *valued, *after)}
    parts = AttentionParts(
        matrices=matrices,
        fused=fused,
        normed=any(op.name in NORMALISING for op in graph.ops_within(_beyond(graph, into, asked, start))),
        projected=values[0].output if values else other,
        heads=first_out.input,
        written=ends[0].output,
        logits=softmax.inputs[0],
        weights=weights,
    )
    return parts, used


def _beyond(graph: Graph, into: set[int], asked: list[Linear], start: int) -> set[int]:
    """What is computed from the projections, of all that the logits are computed from."""
    before = graph.ancestors([each.input for each in asked], frozenset([start]))
    return into - before


def _uses(graph: Graph, op: Op, weights: int) -> bool:
    return any(graph.source(each, SAME) == weights for each in op.inputs[-2:])


def _feed_forward(graph: Graph, linears: list[Linear], start: int) -> FeedForwardParts | None:
    ends = finals(graph, linears, start)
    if len(ends) != 1:
        return None
    down, first_down = chain_to(graph, ends[0], linears, Role.FFN_DOWN)
    inner, stop = first_down.input, frozenset([start])
    before = [each for each in linears if each.output in graph.ancestors([inner], stop)]
    ups = finals(graph, before, start)
    if not ups or len(ups) > 2 or _mixes(graph, linears, inner, start):
        return None
    product = graph.producer.get(inner)
    operands = list(product.inputs) if product and product.name == "mul" and len(product.inputs) == 2 else []
    straight = [each for each in operands if _origin(graph, each) in {linear.output for linear in ups}]
    up_node = straight[0] if len(straight) == 1 else None
    gate_node = next((each for each in operands if each != up_node), None) if up_node is not None else None
    gated = gate_node is not None and _is_gate(graph, gate_node, ups, _origin(graph, up_node), start)
    if len(ups) == 2 and not gated:
        return None
    if not gated:
        up_node = gate_node = None
    fused = gated and len(ups) == 1
    matrices = {Role.FFN_DOWN: down}
    source, entered = {}, []
    for linear in ups:
        is_up = not gated or linear.output == _origin(graph, up_node)
        role = Role.FFN_UP if is_up else Role.FFN_GATE
        matrices[role], first = chain_to(graph, linear, before, role)
        source[role] = linear.output
        entered.append(first.input)
    entering = source[Role.FFN_GATE if gated and not fused else Role.FFN_UP]
    used = {factor.name for matrix in matrices.values() for factor in matrix.factors}
    if any(each.factor.name not in used for each in linears):
        return None
    within = graph.ancestors([inner if gate_node is None else gate_node], frozenset([entering]))
    within -= graph.ancestors([entering])
    names = frozenset(op.name for op in graph.ops_within(within)) & NONLINEAR
    return FeedForwardParts(
        matrices=matrices,
        gated=gated,
        fused=fused,
        activation=recognise(
            NAMES.get(names, ""), *_around(graph, entering, inner if gate_node is None else gate_node)
        ),
        entered=tuple(entered),
        before=entering,
        up=up_node,
        gate=gate_node,
        inner=inner,
        written=ends[0].output,
    )


def _mixes(graph: Graph, linears: list[Linear], inner: int, start: int) -> bool:
    """Whether activations are multiplied with activations as matrices, or convolved: that is no feed-forward part."""
    within = graph.ancestors([inner], frozenset([start]))
    products = [op for op in graph.ops_within(within) if op.name in PRODUCTS | {"cumsum"}]
    return len(products) > len([each for each in linears if each.output in within])


def _around(graph: Graph, before: int, after: int) -> tuple[list[Tensor], Tensor]:
    """What may enter an activation, and what leaves it: of a fused projection either half, or every other channel."""
    entered, left = graph.tensors[before], graph.tensors[after]
    if entered.numel() == left.numel():
        return [entered], left
    half = entered.shape[-1] // 2
    return [entered[..., :half], entered[..., half:], entered[..., ::2], entered[..., 1::2]], left


def _origin(graph: Graph, node: int | None) -> int | None:
    return None if node is None else graph.source(node, ALIASES | PIECES)


def _is_gate(graph: Graph, node: int, ups: list[Linear], up: int | None, start: int) -> bool:
    """Whether a factor is an activation of another projection than `up`, or of another piece of a fused one."""
    if len(ups) == 2:
        return True
    before = graph.ancestors([node], frozenset([start]))
    pieces = [op for op in graph.ops_within(before) if op.name in PIECES and op.inputs and op.name not in LAYOUTS]
    return any(_origin(graph, op.inputs[0]) == up for op in pieces)


LAYOUTS = frozenset(("transpose", "permute"))


def _way_out(graph: Graph, segment: Segment, written: list[int]) -> tuple[bool, dict[int, float]]:
    """Whether only additions, output norms and constant factors stand between what is written and the stream."""
    wanted, scales = set(written), dict[int, float]()
    norms = {graph.source(norm.output): norm for norm in segment.post_norms}
    waiting = [(node, 1.0) for node in segment.contributions]
    while waiting:
        node, factor = waiting.pop()
        node = graph.source(node)
        op = graph.producer.get(node)
        if node in wanted:
            scales[node] = scales.get(node, 0.0) + factor
        elif node in norms:
            waiting.append((norms[node].input, factor))
        elif op is not None and op.name == "mul" and len(op.inputs) == 1 and op.scalars:
            waiting.append((op.inputs[0], factor * op.scalars[0]))
        elif op is not None and op.name == "add" and len(op.inputs) == 2:
            alpha = op.scalars[0] if op.scalars else 1.0
            pairs = ((op.inputs[0], factor), (op.inputs[1], factor * alpha))
            waiting.extend(pair for pair in pairs if pair[0] not in graph.name_of)
        else:
            return False, dict.fromkeys(wanted, 1.0)
    direct = bool(wanted) and scales.keys() == wanted
    return direct, {node: abs(scales.get(node, 1.0)) for node in wanted}
