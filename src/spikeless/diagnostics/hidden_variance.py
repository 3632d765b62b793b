"""Variance of the residual stream over depth."""

from torch import Tensor

from spikeless.diagnostics import Snapshot

__all__ = ["hidden_variance"]


def hidden_variance(snapshot: Snapshot) -> dict[str, Tensor]:
    """Population variance over the width of the residual stream, mean over tokens, layer by layer [dimensionless].

    Readings:
        hidden_variance/000: of the vectors that enter the first block; hidden_variance/NNN: after block NNN.
        hidden_variance/growth: the last over the first.

    Costs a forward pass of one micro-batch.

    Reference: Takase et al., arXiv 2312.16903, and Chung et al., arXiv 2409.07787, tie its growth to exploding
    gradients; that it is the mean over tokens of one micro-batch is our definition.
    """
    variances = [stream.float().var(-1, correction=0).mean() for stream in snapshot.streams()]
    if not variances:
        return {}
    readings = {f"hidden_variance/{depth:03d}": variance for depth, variance in enumerate(variances)}
    return readings | {"hidden_variance/growth": variances[-1] / variances[0]}
