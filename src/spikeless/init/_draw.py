"""Resolve the initialisation once, at build, and draw each parameter from a generator of its own."""

import hashlib
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from spikeless.config import slot
from spikeless.init.normal import NormalInit
from spikeless.roles import Role, role_of

__all__ = ["InitConfig", "Scheme", "StdTarget", "TargetStd", "initialise", "standard_deviations"]


class Scheme(Protocol):
    """A family's rule for the standard deviation of every matrix."""

    def std(self, role: Role, d_out: int, d_in: int, *, width: int, num_layers: int) -> float:
        """Standard deviation of the entries of a matrix [d_out, d_in] with this role."""
        ...


class StdTarget(Protocol):
    """A technique's wish for one role, resolved against what the scheme would have given."""

    def resolve(self, scheme_std: float, d_out: int, d_in: int) -> float:
        """Standard deviation of the entries of a matrix [d_out, d_in]."""
        ...


@runtime_checkable
class SeveralTensors(Protocol):
    """A linear map made of several tensors, such as `nn.projection.LowRankLinear`."""

    d_in: int
    d_out: int

    def stds(self, dense_std: float) -> dict[str, float]:
        """Standard deviation of each tensor, for a map that stands for a dense matrix with `dense_std`."""
        ...


Target = float | StdTarget | None


@dataclass(frozen=True, kw_only=True)
class TargetStd:
    """Standard deviations that techniques ask for, by role; None leaves the role to the scheme."""

    token_embedding: Target = None
    position_embedding: Target = None
    query: Target = None
    key: Target = None
    value: Target = None
    attention_out: Target = None
    ffn_up: Target = None
    ffn_gate: Target = None
    ffn_down: Target = None
    head: Target = None


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """The scheme, and what techniques ask for on top of it."""

    scheme: Scheme = slot(NormalInit(), room="init")
    target_std: TargetStd = TargetStd()

    def std(self, role: Role, d_out: int, d_in: int, *, width: int, num_layers: int) -> float:
        """The resolved standard deviation of a matrix [d_out, d_in] with this role."""
        scheme_std = self.scheme.std(role, d_out, d_in, width=width, num_layers=num_layers)
        target = getattr(self.target_std, role.value, None)
        if target is None:
            return scheme_std
        return float(target) if isinstance(target, int | float) else target.resolve(scheme_std, d_out, d_in)


def standard_deviations(model: torch.nn.Module, init: InitConfig, *, width: int, num_layers: int) -> dict[str, float]:
    """Standard deviation of each parameter that is drawn, by name; a model on the device "meta" will do."""
    stds: dict[str, float] = {}
    for prefix, module in model.named_modules():
        if isinstance(module, SeveralTensors):
            role = role_of(f"{prefix}.weight", Role.OTHER)
            dense = init.std(role, module.d_out, module.d_in, width=width, num_layers=num_layers)
            stds |= {f"{prefix}.{name}": std for name, std in module.stds(dense).items()}
    for name, parameter in model.named_parameters():
        role = role_of(name, Role.OTHER)
        if role.is_matrix and parameter.ndim == 2 and name not in stds:
            d_out, d_in = parameter.shape
            stds[name] = init.std(role, d_out, d_in, width=width, num_layers=num_layers)
    return stds


def initialise(model: torch.nn.Module, init: InitConfig, seed: int, *, width: int, num_layers: int) -> None:
    """Draw all parameters in place: matrices N(0, std^2), norm weights one, biases zero.

    What has no known role, in a part from outside the package, keeps the values that its part gave it.

    Each parameter has a generator seeded by (seed, name): models that share a parameter share its draw,
    and the weights do not depend on the order of construction or on the number of processes.
    """
    stds = standard_deviations(model, init, width=width, num_layers=num_layers)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            role = role_of(name, Role.OTHER)
            if name in stds:
                draw = torch.randn(parameter.shape, generator=_generator(seed, name), dtype=torch.float32)
                parameter.copy_(draw.mul_(stds[name]))
            elif role in (Role.NORM, Role.BIAS):
                parameter.fill_(1.0 if role is Role.NORM and name.endswith("weight") else 0.0)


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
