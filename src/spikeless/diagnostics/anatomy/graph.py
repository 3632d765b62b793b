"""The operations of one call, as PyTorch's dispatcher sees them: which tensor was computed from which.

Structure is read from what a model *does*, not from what its parts are called.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["ALIASES", "PIECES", "Call", "Graph", "Op", "Recorder", "hidden_of", "hook_calls"]

ALIASES = frozenset(
    (
        "view",
        "_unsafe_view",
        "reshape",
        "clone",
        "alias",
        "detach",
        "_to_copy",
        "contiguous",
        "lift_fresh",
        "squeeze",
        "unsqueeze",
        "dropout",
        "native_dropout",
    )
)
"""Operations that keep every number in its place along the width."""
PIECES = frozenset(
    (
        "slice",
        "split",
        "split_with_sizes",
        "select",
        "unbind",
        "narrow",
        "index_select",
        "chunk",
        "transpose",
        "permute",
    )
)
"""Operations that choose or reorder numbers, and compute none."""

FLAT = (2, 3)  # some models join batch and sequence on the way


@dataclass(slots=True)
class Op:
    """One operation; tensors are nodes, numbered in the order in which they were first seen."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    scalars: tuple[float, ...]


@dataclass(slots=True)
class Call:
    """One call of a module inside the graph."""

    path: str
    module: torch.nn.Module
    input: int | None
    first_op: int
    output: int | None = None
    end_op: int = 0


class Graph:
    """What happened during a call. It keeps every tensor alive; let it go when it has been read."""

    def __init__(self, named: Mapping[int, tuple[str, Tensor]]) -> None:
        self.ops: list[Op] = []
        self.calls: list[Call] = []
        self.tensors: list[Tensor] = []
        self.producer: dict[int, Op] = {}
        self.name_of: dict[int, str] = {}
        self.overwritten: set[int] = set()
        self._node_of: dict[int, int] = {}
        self._named = named
        self._kept: list[Tensor] = []

    def node(self, tensor: Tensor) -> int:
        """The number of a tensor."""
        found = self._node_of.get(id(tensor))
        return self.add(tensor) if found is None else found

    def add(self, tensor: Tensor) -> int:
        """Number a tensor that is new, or that was just overwritten."""
        node = len(self.tensors)
        self.tensors.append(tensor)
        self._node_of[id(tensor)] = node
        if id(tensor) in self._named:
            self.name_of[node] = self._named[id(tensor)][0]
        return node

    def find(self, tensor: Tensor | None) -> int | None:
        """The number of a tensor, or None if no operation has seen it."""
        return None if tensor is None else self._node_of.get(id(tensor))

    def record(self, name: str, args: Any, result: Any) -> None:
        """Note an operation."""
        leaves = tree_leaves(args)
        inputs = tuple(self.node(each) for each in leaves if isinstance(each, Tensor))
        scalars = tuple(float(each) for each in leaves if type(each) in (int, float))
        in_place = is_in_place(name)
        outputs = tuple(
            self.add(each) if in_place else self.node(each) for each in tree_leaves(result) if isinstance(each, Tensor)
        )
        op = Op(name.rstrip("_") if in_place else name, inputs, outputs, scalars)
        self.ops.append(op)
        for node in outputs:
            if node not in inputs:  # given back as it was
                self.producer.setdefault(node, op)

    def keep(self, tensor: Tensor) -> None:
        """Keep the numbers of a hidden state that is about to be overwritten; its history is lost."""
        node = self.find(tensor)
        if node is not None and tensor.dim() in FLAT and tensor.is_floating_point():
            self.tensors[node] = tensor.detach().clone()
            self.overwritten.add(node)
            self._kept.append(tensor)

    def source(self, node: int, through: frozenset[str] = ALIASES) -> int:
        """The node that this one is the same numbers as, in another shape."""
        while (op := self.producer.get(node)) is not None and op.name in through and op.inputs:
            node = op.inputs[0]
        return node

    def ancestors(self, nodes: Iterable[int], stop: frozenset[int] = frozenset()) -> set[int]:
        """All nodes from which these were computed, themselves included; nothing beyond `stop`."""
        seen, waiting = set(), list(nodes)
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            op = self.producer.get(node)
            if op is not None and node not in stop:
                waiting.extend(op.inputs)
        return seen

    def ops_within(self, nodes: set[int]) -> Iterator[Op]:
        """The operations whose result is among these nodes, in order."""
        return (op for op in self.ops if any(each in nodes for each in op.outputs))


@dataclass
class Recorder(TorchDispatchMode):
    """While it is entered, operations are noted in the innermost open graph; with none open they pass."""

    graphs: list[Graph] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return True  # a decision on values that are not there, such as "is nothing masked?"
        name = func.overloadpacket.__name__
        if self.graphs and is_in_place(name) and args and isinstance(args[0], Tensor):
            self.graphs[-1].keep(args[0])
        result = func(*args, **kwargs)
        if self.graphs:
            self.graphs[-1].record(name, (args, kwargs), result)
        return result


def is_in_place(name: str) -> bool:
    """Whether an operation overwrites its first argument."""
    return name.endswith("_") and not name.endswith("__")


def hidden_of(value: Any, like: Tensor | None = None, dims: tuple[int, ...] = (3,)) -> Tensor | None:
    """The first hidden state [B, T, D] in what a module was given or gave; with the shape of `like` if there is one."""
    for each in tree_leaves(value):
        fits = isinstance(each, Tensor) and each.is_floating_point() and each.dim() in dims
        if fits and (like is None or each.shape == like.shape):
            return each
    return None


def hook_calls(model: torch.nn.Module, graph_of: Callable[[], Graph | None], below: str = "") -> list[Any]:
    """Note calls of all modules (or of those below one) in the graph that is open; returns the hooks' handles."""
    handles, open_calls = [], []
    for path, module in model.named_modules():
        if below and not path.startswith(f"{below}."):
            continue

        def before(module: torch.nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
            graph = graph_of()
            given = None if graph is None else hidden_of((args, kwargs), dims=FLAT)
            call = None
            if graph is not None:
                node = None if given is None else graph.node(given)
                call = Call(path, module, node, len(graph.ops))
                graph.calls.append(call)
            open_calls.append((graph, call))

        def after(module: torch.nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            graph, call = open_calls.pop()
            if graph is not None and call is not None:
                given = hidden_of(result, dims=FLAT)
                call.output = None if given is None else graph.node(given)
                call.end_op = len(graph.ops)

        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(after, with_kwargs=True, always_call=False))
    return handles
