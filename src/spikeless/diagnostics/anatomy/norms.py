"""What a norm does, told by what it gives for vectors that are known."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spikeless.diagnostics.anatomy.stream import Normed

__all__ = ["NormFacts", "norm_facts"]


@dataclass(frozen=True, kw_only=True)
class NormFacts:
    """A norm g * x / scale + b.

    Attributes:
        path: of the module.
        gain: effective gain g [D]: 1 + w where the module adds one.
        centred: subtracts the mean (LayerNorm).
        eps: added to the variance or the mean square.
        parameters: their names.
    """

    path: str
    gain: Tensor
    centred: bool
    eps: float
    parameters: tuple[str, ...]

    @property
    def largest_gain(self) -> float:
        """Max |g|."""
        return float(self.gain.abs().max())


def norm_facts(norm: Normed, width: int, entered: Tensor, left: Tensor) -> NormFacts:
    """Facts of a norm: of a module from its outputs for +-1 vectors, scaled and shifted; of a function by a fit.

    On the meta device it is taken to have the gain one.

    Args:
        norm: module or function.
        width: D.
        entered, left: hidden states before and after it.
    """
    if norm.module is None:
        return _fitted(norm, width, entered, left)
    module = norm.module
    names = tuple(f"{norm.path}.{name}" for name, _ in module.named_parameters())
    example = next(module.parameters(), None)
    device = example.device if example is not None else torch.device("cpu")
    dtype = example.dtype if example is not None else torch.float32
    if device.type == "meta":
        centred = any(name.endswith("bias") for name in names)
        return NormFacts(path=norm.path, gain=torch.ones(width), centred=centred, eps=0.0, parameters=names)
    if not _takes_a_vector(module, width, device, dtype):
        return replace(_fitted(norm, width, entered, left), parameters=names)
    signs = torch.ones(width, device=device, dtype=torch.float64)
    signs[1::2] = -1.0
    if width % 2:
        signs[-1] = 0.0
    unit = (signs / signs.square().mean().sqrt()).to(dtype)
    with torch.no_grad():
        ahead, back = _call(module, unit), _call(module, -unit)
        gain = torch.where(signs != 0, (ahead - back) / 2 / torch.where(signs != 0, unit, 1.0), 0.0)
        if width % 2:  # the entry that was zero
            rolled = unit.roll(1)
            gain[-1] = ((_call(module, rolled) - _call(module, -rolled)) / 2 / rolled)[-1]
        shifted = _call(module, unit + 3.0) - (ahead + back) / 2
        centred = bool(((shifted - gain * unit).abs() <= 1e-2 * gain.abs().max() + 1e-6).all())
        small = 1e-3
        shrunk = (_call(module, small * unit) - _call(module, -small * unit)) / 2
        strong = gain.abs().argmax()
        ratio = float(gain[strong] * unit[strong] / shrunk[strong]) if width > 1 and float(shrunk[strong]) else 1.0
    return NormFacts(
        path=norm.path,
        gain=gain,
        centred=centred,
        eps=max(0.0, small**2 * (ratio**2 - 1)),
        parameters=names,
    )


def _takes_a_vector(module: torch.nn.Module, width: int, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether it can be called with one vector, and gives one."""
    try:
        with torch.no_grad():
            result = module(torch.ones(1, 1, width, device=device, dtype=dtype))
    except Exception:  # its signature is the user's
        return False
    return isinstance(result, Tensor) and result.shape == (1, 1, width)


def _fitted(norm: Normed, width: int, entered: Tensor, left: Tensor) -> NormFacts:
    """Least squares of what left on the normalised vectors, channel by channel, with and without centring."""
    nothing = NormFacts(path=norm.path, gain=torch.ones(width), centred=False, eps=0.0, parameters=())
    if entered.is_meta or left.numel() != entered.numel():
        return nothing
    x, y = (each.detach().double().reshape(-1, width) for each in (entered, left))
    found = []
    for centred in (False, True):
        z = x - x.mean(1, keepdim=True) if centred else x
        z = z / z.square().mean(1, keepdim=True).sqrt()
        z_, y_ = z - z.mean(0), y - y.mean(0)
        gain = (z_ * y_).sum(0) / z_.square().sum(0)
        found.append((float((y_ - gain * z_).square().sum()), centred, gain))
    _, centred, gain = min(found, key=lambda each: each[0])
    return replace(nothing, gain=gain, centred=centred)


def _call(module: torch.nn.Module, vector: Tensor) -> Tensor:
    return module(vector[None, None])[0, 0]
