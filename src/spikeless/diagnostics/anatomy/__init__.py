"""Where embedding, blocks, sub-layers and head are, in any causal language model.

Structure is read from the operations of a forward pass: the residual stream is what additions keep alive, a sub-layer
is what reads it and adds to it, attention is what has a softmax over tokens. Names of modules are not looked at.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches

import torch
from torch import Tensor

from spikeless.diagnostics.anatomy.blocks import BlockCall, find_chain, watch_blocks
from spikeless.diagnostics.anatomy.entry import Entry, entry_of
from spikeless.diagnostics.anatomy.graph import Graph, Recorder, hook_calls
from spikeless.diagnostics.anatomy.language_model import LanguageModel, ProbeError
from spikeless.diagnostics.anatomy.matrices import Linear, Matrix, linears_in
from spikeless.diagnostics.anatomy.norms import NormFacts, norm_facts
from spikeless.diagnostics.anatomy.parts import Parts, parts_of, without_matrices
from spikeless.diagnostics.anatomy.stream import NORMALISING, Form, Segment, find_norms, segments_of
from spikeless.errors import UserError, nearest
from spikeless.roles import Role

__all__ = ["Anatomy", "BlockView", "dissect"]

PARTS = ("blocks", "embedding", "head")


@dataclass(frozen=True, kw_only=True)
class BlockView:
    """One call of a block, with every tensor in it.

    Attributes:
        index: from 0.
        call: how the model made it.
        graph: its operations.
        form: where norms and shortcut stand.
        segments: its sub-layers.
        parts: what each is made of.
        entered, left: the residual stream before and after [B, T, D].
    """

    index: int
    call: BlockCall
    graph: Graph
    form: Form
    segments: tuple[Segment, ...]
    parts: tuple[Parts, ...]
    entered: Tensor
    left: Tensor

    def tensor(self, node: int) -> Tensor:
        """The tensor of a node."""
        return self.graph.tensors[node]


@dataclass(kw_only=True)
class Anatomy:
    """A model's parts.

    Attributes:
        lm: the model behind one call.
        paths: of the blocks, in the order of their calls.
        forms: of the blocks.
        width: D.
        vocab_size: V, of the logits.
        num_heads: of the attention; 0 if none was found.
        entry: from token ids to the stream; None if not found.
        final_norm: before the head, or None.
        head: name of its weight; None if not found.
        tied: the head's weight is the embedding's; None if either is not known.
        roles, layers: of the parameters, by name.
        transposed: names of matrices that are stored [d_in, d_out].
        norms: facts of every norm module on the stream, by path.
        gains: smallest and largest effective gain of each norm's weight, by name.
        unplaced: what was not found, and how the user can tell it.
    """

    lm: LanguageModel
    paths: tuple[str, ...]
    forms: tuple[Form, ...] = ()
    width: int = 0
    vocab_size: int = 0
    num_heads: int = 0
    entry: Entry | None = None
    final_norm: NormFacts | None = None
    head: str | None = None
    tied: bool | None = None
    roles: dict[str, Role] = field(default_factory=dict)
    layers: dict[str, int] = field(default_factory=dict)
    transposed: set[str] = field(default_factory=set)
    norms: dict[str, NormFacts] = field(default_factory=dict)
    gains: dict[str, tuple[float, float]] = field(default_factory=dict)
    unplaced: list[str] = field(default_factory=list)

    def run(self, ids: Tensor, visit: Callable[[BlockView], None]) -> Tensor:
        """Logits [B, T, V] of token ids; `visit` sees every block, whose tensors are let go afterwards.

        `entry.positions` are those of these tokens afterwards.
        """
        logits, graph, streams = _record(self.lm, self.paths, ids, visit)
        if self.entry is not None and self.entry.positions is not None and streams:
            first = graph.find(streams[0])
            found = None if first is None else entry_of(graph, 0, first)
            self.entry = found or self.entry
        return logits

    def calls(self, ids: Tensor) -> list[BlockCall]:
        """How the blocks are called for token ids, to call them again."""
        calls: list[BlockCall] = []

        def enter(index: int, call: BlockCall) -> Tensor:
            calls.append(call)
            return call.stream.clone()  # which the block may overwrite

        with torch.no_grad(), watch_blocks(self.lm.model, self.paths, enter):
            self.lm.logits(ids)
        return calls

    def view(self, index: int, call: BlockCall, stream: Tensor) -> BlockView:
        """A block's call with another stream; differentiable where gradients are on."""
        graph = Graph(_named(self.lm.model))
        recorder = Recorder([graph])
        with _calls_noted(self.lm.model, recorder, call.path), recorder:
            graph.add(stream)
            left = call(stream.clone())  # which a block may overwrite
        recorder.graphs.clear()
        return _view(index, call, graph, stream, left)


def dissect(lm: LanguageModel, parts: Mapping[str, str] | None = None) -> Anatomy:
    """Find a model's parts with one short forward pass; on the meta device too.

    Args:
        lm: the model.
        parts: what the user tells: "blocks", "embedding" and "head" by module path.

    Raises:
        UserError: not a causal language model, or a part that the user names is not there.
    """
    told = dict(parts or {})
    modules = dict(lm.model.named_modules())
    for part, path in told.items():
        if part not in PARTS:
            raise UserError(f"there is no part {part!r} to name; {nearest(part, PARTS, 'part')}")
        if path not in modules:
            near = get_close_matches(path, [name for name in modules if name], n=3, cutoff=0.3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "print(model) shows their names"
            raise UserError(f"{part}={path}: the model has no module {path!r}; {hint}")
    with lm.quiet(), Recorder():
        ids = lm.probe_ids()
    with lm.quiet(), torch.no_grad():
        paths = _told_blocks(modules, told["blocks"]) if "blocks" in told else ()
        if not paths:
            with Recorder():
                paths = find_chain(lm.model, lambda: lm.logits(ids))
        anatomy = Anatomy(lm=lm, paths=paths)
        views: list[BlockView] = []
        logits, graph, streams = _record(lm, paths, ids, views.append)
        anatomy.vocab_size = logits.shape[-1]
        anatomy.forms = tuple(view.form for view in views)
        _place_blocks(anatomy, views)
        _place_ends(anatomy, graph, ids, logits, streams, told)
        _place_rest(anatomy, graph)
    return anatomy


def _told_blocks(modules: Mapping[str, torch.nn.Module], path: str) -> tuple[str, ...]:
    return tuple(f"{path}.{name}" for name, _ in modules[path].named_children())


def _named(model: torch.nn.Module) -> dict[int, tuple[str, Tensor]]:
    pairs = (*model.named_buffers(), *model.named_parameters())
    return {id(tensor): (name, tensor) for name, tensor in pairs}


@contextmanager
def _calls_noted(model: torch.nn.Module, recorder: Recorder, below: str = "") -> Iterator[None]:
    handles = hook_calls(model, lambda: recorder.graphs[-1] if recorder.graphs else None, below)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _record(
    lm: LanguageModel, paths: tuple[str, ...], ids: Tensor, visit: Callable[[BlockView], None]
) -> tuple[Tensor, Graph, list[Tensor]]:
    """Logits, the graph outside of the blocks (each of which is one operation there), the streams between them."""
    named = _named(lm.model)
    outer = Graph(named)
    recorder = Recorder([outer])
    entered: list[tuple[BlockCall, Tensor]] = []
    streams: list[Tensor] = []

    def enter(index: int, call: BlockCall) -> None:
        entered.append((call, call.stream))
        streams.append(call.stream)
        outer.node(call.stream)
        recorder.graphs.append(Graph(named))
        recorder.graphs[-1].add(call.stream)
        return

    def leave(index: int, left: Tensor) -> None:
        graph = recorder.graphs.pop()
        call, stream = entered.pop()
        if left is not stream:
            outer.record("block", (stream,), left)
        streams.append(left)
        graphs, recorder.graphs = recorder.graphs, []  # what the visitor computes is not the model's
        try:
            visit(_view(index, call, graph, stream, left))
        except UserError:
            raise
        except Exception as error:
            raise ProbeError(f"{call.path}: {type(error).__name__}: {error}") from error
        recorder.graphs = graphs

    outer.add(ids)
    with _calls_noted(lm.model, recorder), recorder, watch_blocks(lm.model, paths, enter, leave):
        logits = lm.logits(ids)
    return logits, outer, streams


def _view(index: int, call: BlockCall, graph: Graph, stream: Tensor, left: Tensor) -> BlockView:
    form, segments = segments_of(graph, 0, graph.node(left), call.path)
    if not segments:
        segments = [Segment(start=0, end=graph.node(left), contributions=(graph.node(left),), norms=(), post_norms=())]
    parts = tuple(parts_of(graph, segment) for segment in segments)
    if form == "unknown":  # several sub-layers in one: whose matrix is whose cannot be told
        parts = tuple(without_matrices(each) for each in parts)
    return BlockView(
        index=index,
        call=call,
        graph=graph,
        form=form,
        segments=tuple(segments),
        parts=parts,
        entered=graph.tensors[0],
        left=left,
    )


def _place_blocks(anatomy: Anatomy, views: list[BlockView]) -> None:
    """Roles of the parameters in the blocks."""
    if not views:
        anatomy.unplaced.append("the blocks: name the module that holds them with --part blocks=PATH")
        return
    anatomy.width = views[0].entered.shape[-1]
    anatomy.num_heads = _num_heads(views[0])
    strange: dict[str, list[int]] = {}
    for view in views:
        inside = {name for name, _ in view.call.module.named_parameters(prefix=view.call.path)}
        for name in inside:
            anatomy.layers.setdefault(name, view.index)
        for part, segment in zip(view.parts, view.segments, strict=True):
            for matrix in (*matrices_of(part),):
                for factor in matrix.factors:
                    _note_matrix(anatomy, matrix, factor.name, factor.transposed)
            for norm in (*segment.norms, *segment.post_norms):
                if norm.path not in anatomy.norms:
                    anatomy.norms[norm.path] = norm_facts(
                        norm, anatomy.width, view.tensor(norm.input), view.tensor(norm.output)
                    )
            if part.unknown:
                strange.setdefault(part.unknown.replace(f".{view.index}.", ".*."), []).append(view.index)
        if view.form == "unknown":
            strange.setdefault("the residual stream inside the block", []).append(view.index)
        _note_norms(anatomy, view.graph)
    for what, layers in strange.items():
        which = f"block {layers[0]}" if len(layers) == 1 else f"{len(layers)} blocks, such as block {layers[0]}"
        anatomy.unplaced.append(f"{what} in {which}: its Jacobian is measured as a whole")
    for facts in anatomy.norms.values():
        _note_gain(anatomy, facts)


def _note_gain(anatomy: Anatomy, facts: NormFacts) -> None:
    """The norm's gain under the name of the parameter that makes it: its weight, or its first that is no bias."""
    names = [name for name in facts.parameters if "bias" not in name.rpartition(".")[2]]
    if names:
        name = next((each for each in names if each.endswith("weight")), names[0])
        anatomy.gains[name] = (float(facts.gain.min()), float(facts.gain.max()))


def _num_heads(view: BlockView) -> int:
    weights = [view.tensor(part.attention.weights) for part in view.parts if part.attention is not None]
    return weights[0].shape[:-2].numel() // max(1, len(view.entered)) if weights else 0


def matrices_of(part: Parts) -> tuple[Matrix, ...]:
    """All matrices of a sub-layer."""
    return tuple(matrix for each in (part.attention, part.ffn) if each for matrix in each.matrices.values())


def _note_matrix(anatomy: Anatomy, matrix: Matrix, names: str, transposed: bool) -> None:
    for name in names.split("+"):
        anatomy.roles.setdefault(name, matrix.role)
        if transposed and "+" not in names:
            anatomy.transposed.add(name)


def _note_norms(anatomy: Anatomy, graph: Graph) -> None:
    """Every parameter of a module that normalises and multiplies no matrix belongs to a norm."""
    for call in graph.calls:
        names = {op.name for op in graph.ops[call.first_op : call.end_op]}
        if names & NORMALISING and not names & {"mm", "addmm", "bmm", "baddbmm", "block", "embedding"}:
            for name, parameter in call.module.named_parameters(prefix=call.path):
                if parameter.dim() <= 1:
                    anatomy.roles.setdefault(name, Role.NORM)


def _place_ends(
    anatomy: Anatomy, graph: Graph, ids: Tensor, logits: Tensor, streams: list[Tensor], told: Mapping[str, str]
) -> None:
    """Embedding, final norm and head."""
    parameters = dict(anatomy.lm.model.named_parameters())
    first = graph.find(streams[0]) if streams else None
    if first is not None:
        anatomy.entry = entry_of(graph, 0, first)
    if anatomy.entry is None and "embedding" in told:
        name = f"{told['embedding']}.weight"
        if name in parameters:
            anatomy.entry = Entry(name=name, weight=parameters[name], multiplier=None, words="unknown")
    if anatomy.entry is None:
        anatomy.unplaced.append("the input embedding: name its module with --part embedding=PATH")
    else:
        anatomy.roles[anatomy.entry.name] = Role.TOKEN_EMBEDDING
        if anatomy.entry.function is None and not anatomy.entry.weight.is_meta:
            anatomy.unplaced.append(
                f"what {anatomy.entry.name} goes through ({anatomy.entry.words}): no effective TEV, no theory"
            )
        for name in anatomy.entry.position_names:
            if name in parameters:
                anatomy.roles.setdefault(name, Role.POSITION_EMBEDDING)
    _note_norms(anatomy, graph)
    last = graph.find(streams[-1]) if streams else None
    head = _head_of(graph, logits, last)
    if head is None:
        anatomy.unplaced.append("the head: name its module with --part head=PATH")
        anatomy.head = f"{told['head']}.weight" if f"{told.get('head')}.weight" in parameters else None
    else:
        anatomy.head = head.factor.name
        if head.factor.transposed:
            anatomy.transposed.add(head.factor.name)
        norm = next((each for each in find_norms(graph) if last is not None and each.input == graph.source(last)), None)
        if norm is not None:
            anatomy.final_norm = norm_facts(norm, anatomy.width, graph.tensors[norm.input], graph.tensors[norm.output])
            anatomy.roles |= dict.fromkeys(anatomy.final_norm.parameters, Role.NORM)
            _note_gain(anatomy, anatomy.final_norm)
    if anatomy.head is not None and anatomy.entry is not None:
        anatomy.tied = anatomy.head == anatomy.entry.name or _same_storage(
            parameters.get(anatomy.head), anatomy.entry.weight
        )
        if anatomy.head != anatomy.entry.name:
            anatomy.roles[anatomy.head] = Role.HEAD


def _head_of(graph: Graph, logits: Tensor, last: int | None) -> Linear | None:
    node = graph.find(logits)
    if node is None:
        return None
    before = graph.ancestors([node], frozenset() if last is None else frozenset([last]))
    found = [each for each in linears_in(graph, before) if each.factor.shape[0] == logits.shape[-1]]
    return found[-1] if found else None


def _same_storage(one: Tensor | None, other: Tensor) -> bool:
    if one is None or one.is_meta or other.is_meta:
        return one is other
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape


def _place_rest(anatomy: Anatomy, graph: Graph) -> None:
    """Vectors that are no norm's are biases; matrices that no operation used stay without a role."""
    strange: dict[str, int] = {}
    for name, parameter in anatomy.lm.model.named_parameters():
        if name not in anatomy.roles and parameter.dim() <= 1:
            anatomy.roles[name] = Role.BIAS
        elif name not in anatomy.roles and name in anatomy.layers:
            strange.setdefault(re.sub(r"\.\d+\.", ".*.", name), anatomy.layers[name])
    if strange and not any("in block" in each or "blocks, such as" in each for each in anatomy.unplaced):
        names = ", ".join(list(strange)[:4]) + (f" and {len(strange) - 4} more" if len(strange) > 4 else "")
        anatomy.unplaced.append(f"the purpose of {names}: no spectral norms of these")
