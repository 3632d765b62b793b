"""What a norm does, told by what it gives for vectors that are known."""

from dataclasses import dataclass

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


def norm_facts(norm: Normed, width: int) -> NormFacts:
    """Facts of a norm from its outputs for +-1 vectors, scaled and shifted; meta modules are taken at gain one."""
    module = norm.call.module
    names = tuple(f"{norm.path}.{name}" for name, _ in module.named_parameters())
    example = next(module.parameters(), None)
    device = example.device if example is not None else torch.device("cpu")
    dtype = example.dtype if example is not None else torch.float32
    if device.type == "meta":
        centred = any(name.endswith("bias") for name in names)
        return NormFacts(path=norm.path, gain=torch.ones(width), centred=centred, eps=0.0, parameters=names)
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


def _call(module: torch.nn.Module, vector: Tensor) -> Tensor:
    return module(vector[None, None])[0, 0]
