"""Small init with depth scaling: the baseline that Spike No More calls "Vanilla".

Acts on:    initialisation
Prevents:   large sub-layers (condition 1); leaves the shortcut small, so not condition 2
Watch:      grad_norm, tev/mean
Cost:       none
Conflicts:  gpt2_init, xavier_init
Reference:  Nguyen & Salazar 2019; Takase et al., arXiv 2312.16903
"""

from dataclasses import dataclass

from spikeless.config import replace_at
from spikeless.init.small import SmallInit
from spikeless.run import RunConfig

__all__ = ["SmallInitialisation"]


@dataclass(frozen=True, kw_only=True)
class SmallInitialisation:
    """N(0, 2/(5 D)); W_O and W_2 times sqrt(1/(2 L))."""

    def __call__(self, run: RunConfig) -> RunConfig:
        """The run with the technique applied."""
        return replace_at(run, {"init.scheme": SmallInit()})
