"""AdamW with decoupled weight decay (Loshchilov & Hutter 2019) and decay groups told by role."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch

from spikeless.errors import UserError
from spikeless.roles import Role, role_of

__all__ = ["AdamW", "Optimizer"]

NamedParameters = Iterable[tuple[str, torch.nn.Parameter]]


class Optimizer(Protocol):
    """Describes an optimizer; the loop sets the learning rate of its groups before each step."""

    @property
    def lr(self) -> float:
        """Peak learning rate."""
        ...

    def build(self, named_parameters: NamedParameters) -> torch.optim.Optimizer:
        """The optimizer; parameters keep the order of their names within each group."""
        ...


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """AdamW; matrices and embeddings decay, norms and biases do not.

    Attributes:
        lr: peak learning rate.
        undecayed: roles that a technique exempts from decay besides norms and biases.
    """

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    undecayed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, low, high in (
            ("lr", 0.0, None),
            ("weight_decay", 0.0, None),
            ("beta1", 0.0, 1.0),
            ("beta2", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if value < low or (high is not None and value >= high):
                limits = f"from {low:g}" if high is None else f"from {low:g} to below {high:g}"
                raise UserError(f"optim.{name}={value} is out of range; use a number {limits}")

    def build(self, named_parameters: NamedParameters) -> torch.optim.Optimizer:
        """`torch.optim.AdamW`, fused."""
        decayed, spared = [], []
        never = (Role.NORM, Role.BIAS, *self.undecayed)
        for name, parameter in named_parameters:
            decays = parameter.ndim > 1 and role_of(name, Role.OTHER) not in never
            (decayed if decays else spared).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": spared, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=self.lr,
            betas=(self.beta1, self.beta2),
            eps=self.eps,
            fused=True,
        )
