"""Where the blocks are: the longest chain of calls in which each takes what the last one gave."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikeless.diagnostics.anatomy.graph import hidden_of

__all__ = ["BlockCall", "find_chain", "watch_blocks"]

ALIKE = 0.05  # a block's parameters against those of the chain's largest
COVERAGE = 0.5  # share of the best chain's parameters that a longer chain must hold


@dataclass(frozen=True, kw_only=True)
class BlockCall:
    """One call of a block, as the model made it.

    Attributes:
        path: of the module.
        module: the block.
        args, kwargs: what it was called with.
        hidden: which of them is the residual stream: a position or a name.
    """

    path: str
    module: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    hidden: int | str

    @property
    def stream(self) -> Tensor:
        """The residual stream that entered [B, T, D]."""
        return self.args[self.hidden] if isinstance(self.hidden, int) else self.kwargs[self.hidden]

    def __call__(self, stream: Tensor) -> Tensor:
        """The residual stream that leaves [B, T, D], for another one that enters."""
        args, kwargs = list(self.args), dict(self.kwargs)
        if isinstance(self.hidden, int):
            args[self.hidden] = stream
        else:
            kwargs[self.hidden] = stream
        result = hidden_of(self.module(*args, **kwargs), stream)
        assert result is not None
        return result


@dataclass
class _Seen:
    path: str
    module: torch.nn.Module
    given: Tensor
    gave: Tensor


def find_chain(model: torch.nn.Module, forward: Callable[[], Any]) -> tuple[str, ...]:
    """Paths of the blocks in the order in which they are called; a shared block is there several times.

    Chains are made of calls of modules of one class, or below one parent. Of the chains that hold most of the
    parameters the longest one is taken. Empty if there is none.
    """
    calls: list[_Seen] = []
    handles = []
    for path, module in model.named_modules():
        if not path:
            continue

        def after(module: torch.nn.Module, args: Any, kwargs: Any, result: Any, path: str = path) -> None:
            given = hidden_of((args, kwargs))
            gave = None if given is None else hidden_of(result, given)
            if given is not None and gave is not None:
                calls.append(_Seen(path, module, given, gave))

        handles.append(module.register_forward_hook(after, with_kwargs=True))
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    groups: dict[Any, list[_Seen]] = defaultdict(list)
    for call in calls:
        groups[type(call.module)].append(call)
        groups[call.path.rpartition(".")[0]].append(call)
    chains = [chain for group in groups.values() for chain in _chains(group) if _alike(chain)]
    sizes = {id(chain): _parameters(chain) for chain in chains}
    most = max(sizes.values(), default=0)
    good = [chain for chain in chains if sizes[id(chain)] >= COVERAGE * most > 0]
    best = max(good, key=lambda chain: (len(chain), sizes[id(chain)]), default=[])
    return tuple(call.path for call in best)


def _chains(calls: Sequence[_Seen]) -> list[list[_Seen]]:
    chains: list[list[_Seen]] = []
    for call in calls:
        for chain in chains:
            if chain[-1].gave is call.given:
                chain.append(call)
                break
        else:
            chains.append([call])
    return chains


def _alike(chain: Sequence[_Seen]) -> bool:
    """Blocks are of comparable size; a norm and what follows it are not."""
    sizes = [_parameters([call]) for call in chain]
    return min(sizes) >= ALIKE * max(sizes) > 0


def _parameters(chain: Sequence[_Seen]) -> int:
    return sum({id(p): p.numel() for call in chain for p in call.module.parameters()}.values())


class watch_blocks:
    """While it is entered, each call of a block is announced before and after.

    Args:
        model: holds the blocks.
        paths: of the blocks, in the order of their calls.
        enter: called before each block with its index and call; returns what the block is called with.
        leave: called after each block with its index and output.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        paths: Sequence[str],
        enter: Callable[[int, BlockCall], Tensor | None],
        leave: Callable[[int, Tensor], None] | None = None,
    ) -> None:
        self._model, self._paths, self._enter, self._leave = model, paths, enter, leave
        self._handles: list[Any] = []
        self._index = 0

    def __enter__(self) -> None:
        modules = dict(self._model.named_modules())
        for path in dict.fromkeys(self._paths):
            module = modules[path]
            self._handles.append(module.register_forward_pre_hook(self._before(path), with_kwargs=True, prepend=True))
            self._handles.append(module.register_forward_hook(self._after, with_kwargs=True))

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _before(self, path: str) -> Callable[..., Any]:
        def hook(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            place = _place_of_hidden(args, kwargs)
            call = BlockCall(path=path, module=module, args=args, kwargs=kwargs, hidden=place)
            stream = self._enter(self._index, call)
            if stream is None:
                return None
            if isinstance(place, int):
                return (*args[:place], stream, *args[place + 1 :]), kwargs
            return args, {**kwargs, place: stream}

        return hook

    def _after(self, module: torch.nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        index, self._index = self._index, (self._index + 1) % len(self._paths)  # the model may be called again
        if self._leave is not None:
            stream = hidden_of(result)
            assert stream is not None
            self._leave(index, stream)


def _place_of_hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | str:
    for place, each in (*enumerate(args), *kwargs.items()):
        if isinstance(each, Tensor) and each.is_floating_point() and each.dim() == 3:
            return place
    raise AssertionError("a block without a hidden state")
