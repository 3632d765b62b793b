"""Watch a model being built, and tell how each of its parameters got its first values."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from spikeless.preflight._laws import UNKNOWN, UNWRITTEN, Law, truncated
from spikeless.preflight._operations import NOT_WRITES, RULES, common
from spikeless.preflight.measurements import DeclaredInit

__all__ = ["InitJournal"]

Region = tuple[int, tuple[int, ...], tuple[int, ...]]


@dataclass(kw_only=True)
class _Memory:
    """A storage: what all of it was written with, and what views of a part of it were.

    The weak reference keeps the address from being used again; it does not keep the numbers.
    """

    alive: StorageWeakRef
    whole: Law
    parts: dict[Region, Law] = field(default_factory=dict)


class InitJournal(TorchDispatchMode):
    """Records the writes to all tensors while it is entered: `with InitJournal() as journal: model = make()`.

    It changes no number and draws none. It works on the meta device too, where nothing is computed: there
    `torch.nn.init` leaves truncated normal, orthogonal and sparse draws out, and the journal notes them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._memories: dict[int, _Memory] = {}
        self._paused = False
        self._originals: list[tuple[str, Any]] = []

    def __enter__(self) -> "InitJournal":
        for name, law_of in _DRAWN_IN_STEPS.items():
            original = getattr(nn.init, name, None)
            if original is not None:
                self._originals.append((name, original))
                setattr(nn.init, name, self._in_one(original, law_of))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        while self._originals:
            setattr(nn.init, *self._originals.pop())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation and notes what it wrote."""
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        before = self._law_after(func, args, kwargs)
        out = func(*args, **kwargs)
        arguments = func._schema.arguments
        given = [*zip(arguments, args, strict=False), *((a, kwargs[a.name]) for a in arguments if a.name in kwargs)]
        for argument, value in given:
            if argument.alias_info is not None and argument.alias_info.is_write and func not in NOT_WRITES:
                for tensor in _tensors(value):
                    self._write(tensor, before)
        known = {_address(tensor) for _, value in given for tensor in _tensors(value)}
        values = out if isinstance(out, tuple) and len(func._schema.returns) > 1 else (out,)
        for returned, value in zip(func._schema.returns, values, strict=False):
            if returned.alias_info is None:
                for tensor in _tensors(value):
                    if _address(tensor) not in known:
                        self._write(tensor, before, fresh=True)
        return out

    def declared(self, model: nn.Module) -> dict[str, DeclaredInit]:
        """How the parameters got their values, by name; tied ones under each of their names.

        transformers leaves its initialisation out on the meta device. It is run here for such a model, which
        writes nothing; if it cannot run there, nothing is known of the model and the answer is empty.
        """
        if not self._run_what_transformers_left_out(model):
            return {}
        named = model.named_parameters(remove_duplicate=False)
        return {name: self._law(parameter).declared() for name, parameter in named}

    def _law_after(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Law:
        """The law of what an operation writes or returns."""
        rule = RULES.get(func.overloadpacket)
        if rule is None:
            return UNKNOWN
        try:
            return rule(self._law, args, kwargs)
        except (TypeError, ValueError, IndexError, OverflowError):
            return UNKNOWN  # an overload of other arguments: two tensors multiplied, say

    def _law(self, tensor: Tensor) -> Law:
        """The law of the entries a tensor shows, be it a view or not."""
        memory = self._memories.get(_address(tensor))
        if memory is None:
            return Law(kind="copied")  # made elsewhere: read from a file, say
        region = _region(tensor)
        if region in memory.parts:
            return memory.parts[region]
        start, end = _extent(region)
        inside = []
        for part, law in memory.parts.items():
            first, last = _extent(part)
            if first >= start and last <= end:
                inside.append((math.prod(part[1]), law))
        if inside and sum(count for count, _ in inside) >= tensor.numel():
            return common(law for _, law in inside)
        return memory.whole

    def _write(self, tensor: Tensor, law: Law, fresh: bool = False) -> None:
        address = _address(tensor)
        if not (tensor.is_floating_point() and address):
            return
        storage = tensor.untyped_storage()
        if fresh or address not in self._memories:
            whole = UNWRITTEN if fresh else Law(kind="copied")
            self._memories[address] = _Memory(alive=StorageWeakRef(storage), whole=whole)
        memory = self._memories[address]
        if fresh or tensor.numel() * tensor.element_size() >= storage.nbytes():
            memory.whole, memory.parts = law, {}
        else:
            memory.parts[_region(tensor)] = law

    def _in_one(self, original: Callable[..., Tensor], law_of: Callable[..., Law]) -> Callable[..., Tensor]:
        """A function of `torch.nn.init` that draws in several operations, noted as one write."""

        def draw(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            was, self._paused = self._paused, True
            try:
                out = original(tensor, *args, **kwargs)
            finally:
                self._paused = was
            self._write(tensor, law_of(tensor, *args, **kwargs))
            return out

        return draw

    def _run_what_transformers_left_out(self, model: nn.Module) -> bool:
        transformers: Any = sys.modules.get("transformers")
        family = getattr(transformers, "PreTrainedModel", None)
        if family is None or not any(parameter.is_meta for parameter in model.parameters()):
            return True
        inside: set[nn.Module] = set()
        for module in model.modules():
            if module not in inside and isinstance(module, family):
                inside.update(module.modules())
                marked = {each for each in module.modules() if getattr(each, _MARK, False)}
                try:
                    with self:
                        getattr(module, "initialize_weights")()  # noqa: B009
                except Exception:  # someone else's code, asked to work where it was not meant to
                    return False
                finally:
                    for each in set(module.modules()) - marked:
                        each.__dict__.pop(_MARK, None)
        return True


_MARK = "_is_hf_initialized"  # transformers' mark on a module that needs no initialisation any more


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)


def _address(tensor: Tensor) -> int:
    """Which memory a tensor lies in; 0 if it has none of its own."""
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        return 0


def _region(tensor: Tensor) -> Region:
    return int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride()


def _extent(region: Region) -> tuple[int, int]:
    """Offsets of the first and the last entry."""
    offset, shape, strides = region
    return offset, offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def _orthogonal(tensor: Tensor, gain: float = 1, generator: object = None) -> Law:
    rows = tensor.shape[0]
    return Law(kind="unknown", scale=gain / math.sqrt(max(rows, tensor.numel() // rows)))


# Functions of `torch.nn.init` that take several operations, and do nothing at all on the meta device.
_DRAWN_IN_STEPS: dict[str, Callable[..., Law]] = {
    "_no_grad_trunc_normal_": lambda tensor, mean, std, a, b, generator=None: truncated(mean, std, a, b),
    "orthogonal_": _orthogonal,
    "sparse_": lambda tensor, *args, **kwargs: UNKNOWN,
    "dirac_": lambda tensor, *args, **kwargs: UNKNOWN,
}
