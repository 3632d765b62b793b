"""What any optimizer keeps between steps, as named tensors and JSON, and back; nothing is pickled."""

import inspect
import math
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from spikeless.errors import UserError

__all__ = ["OptimizerState"]

CONTAINERS: dict[str, Any] = {
    each.__name__: each for each in (list, tuple, set, frozenset, torch.Size, deque, dict, OrderedDict)
}
MAPPINGS = ("dict", "OrderedDict")
SET_ELSEWHERE = ("params", "param_names", "lr")  # of a group: by `build`, and the rate by the loop
TORCHS = ("defaults", "state", "param_groups")


class OptimizerState:
    """Saves and restores one optimizer.

    Saved are the state of each parameter, what a `state_dict` of the optimizer's own adds, and those settings of its
    groups and plain attributes that have changed since it was built. All else `build` makes of the configuration.

    Raises:
        UserError: what was built is no optimizer, or one that computes the loss itself.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        name = type(optimizer).__name__
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise UserError(f"optim: `build` gave something of type {name}; it must give a torch.optim.Optimizer")
        closure = inspect.signature(optimizer.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise UserError(f"optim: {name} computes the loss itself, which this loop does once a step; use another")
        self._optimizer, self._parameters = optimizer, parameters
        self._built = [{key: self._packed(value) for key, value in each.items()} for each in self._settings()]

    def save(self, copy: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Copies of the tensors, by PARAMETER/KEY or another path, and the rest as JSON: empty if there is no more.

        Args:
            copy: without it the tensors are the optimizer's own, which tells whether it can be saved and costs nothing.

        Raises:
            UserError: the state holds what is neither a tensor nor plain data.
        """
        pack, names = _Pack(self._parameters, copy), {id(each): name for name, each in self._parameters.items()}
        own = {key: value for key, value in self._optimizer.state_dict().items() if key not in TORCHS}
        rest: dict[str, Any] = {"parameters": {}, "others": [], "more": {}, "settings": {}}
        try:
            for key, state in self._optimizer.state.items():
                if (name := names.get(id(key))) is None:
                    rest["others"].append([pack.encode(key, "others"), pack.encode(state, f"others/{key}")])
                elif left := [pair for pair in pack.encode(dict(state), name)["dict"] if not _is_implied(pair, name)]:
                    rest["parameters"][name] = {"dict": left}
            rest["more"] = {key: pack.encode(value, f"more/{key}") for key, value in own.items()}
        except TypeError as error:
            raise UserError(
                f"the state of {type(self._optimizer).__name__} cannot be saved: {error}; tensors, numbers, words, "
                "and lists and dicts of them can be"
            ) from None
        for index, (now, built) in enumerate(zip(self._settings(), self._built, strict=True)):
            for key, value in now.items():
                if key not in built or not _same(self._packed(value), built[key]):
                    rest["settings"].setdefault(str(index), {})[key] = pack.encode(value, f"settings/{index}/{key}")
        return pack.tensors, {key: value for key, value in rest.items() if value}

    def load(self, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
        """Become what `save` gave; its tensors are copied.

        Raises:
            UserError: it is not of this optimizer.
        """
        unpack = _Unpack(tensors, self._parameters)
        try:
            state: dict[Any, Any] = {}
            for name, left in rest.get("parameters", {}).items():  # first: a path alone says nothing of a device
                state[self._parameters[name]] = unpack.decode(left)
            for path in tensors:
                name, _, key = path.rpartition("/")
                if name in self._parameters:
                    state.setdefault(self._parameters[name], {}).setdefault(key, unpack.decode({"tensor": path}))
            state |= {unpack.decode(key): unpack.decode(value) for key, value in rest.get("others", ())}
            for index, now in enumerate(self._settings()):
                restored = {k: _Unpack(own, self._parameters).decode(v) for k, (v, own) in self._built[index].items()}
                restored |= {k: unpack.decode(v) for k, v in rest.get("settings", {}).get(str(index), {}).items()}
                self._set(index, now, restored)
            own = {key: unpack.decode(value) for key, value in rest.get("more", {}).items()}
            groups = self._optimizer.state_dict()["param_groups"]
            # torch would cast the state of a parameter that is given by its index, and take a word for a list
            self._optimizer.load_state_dict({**own, "state": state, "param_groups": groups})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            name = type(self._optimizer).__name__
            raise UserError(f"the checkpoint's optimizer state is not one of {name}: {error}") from error

    def _settings(self) -> Iterator[dict[str, Any]]:
        """What can change of each group, then of the optimizer's attributes; functions and the like cannot."""
        for group in self._optimizer.param_groups:
            yield {key: value for key, value in group.items() if key not in SET_ELSEWHERE and self._is_data(value)}
        yield {
            key: value
            for key, value in vars(self._optimizer).items()
            if key not in TORCHS and not key.startswith("_") and self._is_data(value)
        }

    def _set(self, index: int, now: Mapping[str, Any], restored: Mapping[str, Any]) -> None:
        groups = self._optimizer.param_groups
        target = groups[index] if index < len(groups) else vars(self._optimizer)
        for key in now.keys() - restored.keys():
            del target[key]
        target.update(restored)

    def _packed(self, value: Any) -> tuple[Any, dict[str, Tensor]]:
        pack = _Pack(self._parameters)
        return pack.encode(value, "value"), pack.tensors

    def _is_data(self, value: Any) -> bool:
        try:
            self._packed(value)
        except TypeError:
            return False
        return True


class _Pack:
    """Turns values into JSON, in which a tensor is the path of its copy; one that occurs twice is copied once."""

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], copy: bool = True) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._known: dict[int, dict[str, str]] = {id(each): {"parameter": name} for name, each in parameters.items()}
        self._kept: list[Tensor] = []  # an id is that of one object only while the object lives
        self._home, self._copy = _home(parameters), copy

    def encode(self, value: Any, path: str) -> Any:
        """The JSON of a value.

        Raises:
            TypeError: it is no data, saying where.
        """
        kind = type(value)
        if kind in (Tensor, torch.nn.Parameter):
            return self._tensor(value, path)
        if value is None or kind in (bool, int, str):
            return value
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"float": str(float(value))}
        if CONTAINERS.get(kind.__name__) is not kind:
            raise TypeError(f"{path} is of type {kind.__name__}")
        if isinstance(value, dict):
            return {kind.__name__: [[self.encode(k, path), self.encode(v, f"{path}/{k}")] for k, v in value.items()]}
        items = [self.encode(each, f"{path}/{index}") for index, each in enumerate(value)]
        return {"deque": items, "maxlen": value.maxlen} if isinstance(value, deque) else {kind.__name__: items}

    def _tensor(self, tensor: Tensor, path: str) -> dict[str, str]:
        if id(tensor) not in self._known:
            while path in self.tensors:
                path += "'"
            self.tensors[path] = tensor.detach().to("cpu", copy=True).contiguous() if self._copy else tensor
            self._kept.append(tensor)
            stays = {"device": "cpu"} if tensor.device.type == "cpu" != self._home.type else {}
            self._known[id(tensor)] = {"tensor": path, **stays}
        return self._known[id(tensor)]


class _Unpack:
    """The inverse of `_Pack`; each tensor is copied once, to where the parameters are unless it was kept on the CPU."""

    def __init__(self, tensors: Mapping[str, Tensor], parameters: Mapping[str, torch.nn.Parameter]) -> None:
        self._tensors, self._parameters, self._home = tensors, parameters, _home(parameters)
        self._copies: dict[str, Tensor] = {}

    def decode(self, data: Any) -> Any:
        """The value that was encoded."""
        if not isinstance(data, dict):
            return data
        (kind, inner), *more = data.items()
        if kind == "parameter":
            return self._parameters[inner]
        if kind == "tensor":
            if inner not in self._copies:
                self._copies[inner] = self._tensors[inner].to(data.get("device", self._home), copy=True)
            return self._copies[inner]
        if kind == "float":
            return float(inner)
        if kind in MAPPINGS:
            return CONTAINERS[kind]([(self.decode(key), self.decode(value)) for key, value in inner])
        return CONTAINERS[kind]((self.decode(each) for each in inner), **dict(more))


def _home(parameters: Mapping[str, torch.nn.Parameter]) -> torch.device:
    return next((each.device for each in parameters.values()), torch.device("cpu"))


def _is_implied(pair: Sequence[Any], name: str) -> bool:
    """True if a tensor's path says all: whose state it is, and under which key."""
    key, value = pair
    return isinstance(key, str) and "/" not in key and value == {"tensor": f"{name}/{key}"}


def _same(one: tuple[Any, dict[str, Tensor]], other: tuple[Any, dict[str, Tensor]]) -> bool:
    return repr(one[0]) == repr(other[0]) and all(torch.equal(each, other[1][path]) for path, each in one[1].items())
