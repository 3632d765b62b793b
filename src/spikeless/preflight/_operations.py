"""What the operations of torch that initialisations are made of do to the law of the entries."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from spikeless.preflight._laws import UNKNOWN, UNWRITTEN, Law, constant, normal, uniform

__all__ = ["NOT_WRITES", "RULES", "common"]


def common(laws: Iterable[Law]) -> Law:
    """The law of pieces put together: their own if they share one."""
    first, *others = laws
    return first if all(each == first for each in others) else UNKNOWN


def _number(value: Any) -> float:
    """A number, or the number in a tensor without dimensions; NaN for one without a value.

    Raises:
        TypeError: a tensor with dimensions.
    """
    if not isinstance(value, Tensor):
        return float(value)
    if value.dim():
        raise TypeError("not a number")
    return math.nan if value.is_meta else value.item()


Rule = Callable[[Callable[[Tensor], Law], Sequence[Any], Mapping[str, Any]], Law]


def _copied(law: Callable[[Tensor], Law], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Law:
    return law(args[0])


def _copied_in(law: Callable[[Tensor], Law], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Law:
    return law(args[1])


def _times(law: Callable[[Tensor], Law], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Law:
    scaled, factor = (args[1], args[0]) if _is_number(args[0]) else (args[0], args[1])
    return law(scaled).times(_number(factor))


def _is_number(value: Any) -> bool:
    return not isinstance(value, Tensor) or value.dim() == 0


def _divided(law: Callable[[Tensor], Law], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Law:
    divisor = _number(args[1])
    return law(args[0]).times(1 / divisor) if divisor and "rounding_mode" not in kwargs else UNKNOWN


def _plus(law: Callable[[Tensor], Law], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Law:
    shifted, shift = (args[1], args[0]) if _is_number(args[0]) else (args[0], args[1])
    return law(shifted).plus(_number(shift) * _number(kwargs.get("alpha", 1)))


def _minus(law: Callable[[Tensor], Law], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Law:
    return law(args[0]).plus(-_number(args[1]) * _number(kwargs.get("alpha", 1)))


def _clamped(law: Callable[[Tensor], Law], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Law:
    low = kwargs.get("min", args[1] if len(args) > 1 else None)
    high = kwargs.get("max", args[2] if len(args) > 2 else None)
    return law(args[0]).clamped(-math.inf if low is None else _number(low), math.inf if high is None else _number(high))


def _joined(law: Callable[[Tensor], Law], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Law:
    return common(law(each) for each in args[0])


def _fill(value: Callable[[Sequence[Any]], Any]) -> Rule:
    return lambda law, args, kwargs: constant(_number(value(args)))


def _drawn(make: Callable[[float, float], Law], default: tuple[float, float], skip: int) -> Rule:
    """A draw with two numbers behind `skip` other arguments."""
    return lambda law, args, kwargs: make(*(_number(each) for each in (*args[skip:], *default[len(args[skip:]) :])[:2]))


def _fixed(law_of_all: Law) -> Rule:
    return lambda law, args, kwargs: law_of_all


_ATEN = torch.ops.aten
RULES: dict[Any, Rule] = {
    _ATEN.normal_: _drawn(normal, (0.0, 1.0), skip=1),
    _ATEN.normal: _drawn(normal, (0.0, 1.0), skip=0),
    _ATEN.uniform_: _drawn(uniform, (0.0, 1.0), skip=1),
    _ATEN.fill_: _fill(lambda args: args[1]),
    _ATEN.fill: _fill(lambda args: args[1]),
    _ATEN.full: _fill(lambda args: args[1]),
    _ATEN.full_like: _fill(lambda args: args[1]),
    _ATEN.new_full: _fill(lambda args: args[2]),
    _ATEN.mul: _times,
    _ATEN.mul_: _times,
    _ATEN.div: _divided,
    _ATEN.div_: _divided,
    _ATEN.add: _plus,
    _ATEN.add_: _plus,
    _ATEN.sub: _minus,
    _ATEN.sub_: _minus,
    _ATEN.neg: lambda law, args, kwargs: law(args[0]).times(-1.0),
    _ATEN.neg_: lambda law, args, kwargs: law(args[0]).times(-1.0),
    _ATEN.clamp: _clamped,
    _ATEN.clamp_: _clamped,
    _ATEN.erfinv: lambda law, args, kwargs: law(args[0]).erfinv(),
    _ATEN.erfinv_: lambda law, args, kwargs: law(args[0]).erfinv(),
    _ATEN.copy_: _copied_in,
    _ATEN.cat: _joined,
    _ATEN.stack: _joined,
} | {
    packet: _fixed(law)
    for law, packets in (
        (UNWRITTEN, (_ATEN.empty, _ATEN.empty_like, _ATEN.empty_strided, _ATEN.new_empty, _ATEN.new_empty_strided)),
        (constant(0.0), (_ATEN.zero_, _ATEN.zeros, _ATEN.zeros_like, _ATEN.new_zeros)),
        (constant(1.0), (_ATEN.ones, _ATEN.ones_like, _ATEN.new_ones)),
        (normal(0.0, 1.0), (_ATEN.randn, _ATEN.randn_like)),
        (uniform(0.0, 1.0), (_ATEN.rand, _ATEN.rand_like)),
    )
    for packet in packets
}
RULES |= dict.fromkeys((_ATEN.clone, _ATEN._to_copy, _ATEN.lift_fresh_copy, _ATEN.repeat), _copied)
RULES |= dict.fromkeys((_ATEN.t_copy, _ATEN.transpose_copy, _ATEN.view_copy, _ATEN._reshape_copy), _copied)
# In their schemas these write, but they change the memory behind a tensor, not what is in it.
NOT_WRITES = {
    overload
    for packet in (_ATEN.set_, _ATEN.resize_, _ATEN.t_, _ATEN.transpose_, _ATEN.squeeze_, _ATEN.unsqueeze_)
    for overload in (getattr(packet, name) for name in packet.overloads())
} | {_ATEN.detach_.default}
