"""N(0, 0.02^2) for every matrix: Llama's own initialisation."""

from dataclasses import dataclass

from spikeless.roles import Role

__all__ = ["NormalInit"]


@dataclass(frozen=True, kw_only=True)
class NormalInit:
    """The same standard deviation everywhere, no depth scaling."""

    scale: float = 0.02

    def std(self, role: Role, d_out: int, d_in: int, *, width: int, num_layers: int) -> float:
        """Standard deviation of the entries of a matrix [d_out, d_in]."""
        return self.scale
