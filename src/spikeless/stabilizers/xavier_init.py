"""Xavier everywhere, embeddings too, no depth scaling: a negative control.

Acts on:    initialisation
Prevents:   nothing here: it meets neither condition, large sub-layers included
Watch:      grad_norm, tev/mean
Cost:       none
Conflicts:  gpt2_init, small_init
Reference:  Glorot & Bengio 2010; Takase et al., arXiv 2312.16903
"""

from dataclasses import dataclass

from spikeless.config import replace_at
from spikeless.init.xavier import XavierInit
from spikeless.run import RunConfig

__all__ = ["XavierInitialisation"]


@dataclass(frozen=True, kw_only=True)
class XavierInitialisation:
    """N(0, 2/(d_in + d_out)) for every matrix."""

    def __call__(self, run: RunConfig) -> RunConfig:
        """The run with the technique applied."""
        return replace_at(run, {"init.scheme": XavierInit()})
