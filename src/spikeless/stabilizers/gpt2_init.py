"""GPT-2's initialisation: N(0, 0.02^2), residual projections divided by sqrt(2 L).

Acts on:    initialisation
Prevents:   variance that grows with depth at initialisation
Watch:      grad_norm, tev/mean
Cost:       none
Conflicts:  small_init, xavier_init
Reference:  Radford et al. 2019
"""

from dataclasses import dataclass

from spikeless.config import replace_at
from spikeless.init.gpt2 import GPT2Init
from spikeless.run import RunConfig

__all__ = ["GPT2Initialisation"]


@dataclass(frozen=True, kw_only=True)
class GPT2Initialisation:
    """N(0, 0.02^2); W_O and W_2 divided by sqrt(2 L)."""

    def __call__(self, run: RunConfig) -> RunConfig:
        """The run with the technique applied."""
        return replace_at(run, {"init.scheme": GPT2Init()})
