"""Token Embedding Variability (Chung et al., arXiv 2409.07787): a cheap proxy for pre-training stability."""

import torch
from torch import Tensor

from spikeless.diagnostics import Snapshot
from spikeless.stats import mean_and_std, row_moments

__all__ = ["tev"]


def tev(snapshot: Snapshot) -> dict[str, Tensor]:
    """TEV_i = sqrt((1/D) sum_j (e_ij - mean_j e_ij)^2), its mean and population std over the vocabulary.

    Readings, all dimensionless:
        tev/mean, tev/std: raw, of the weights.
        tev/effective_mean, tev/effective_std: of the vectors that enter the residual stream, without positions.
        tev/effective_with_positions_mean, _std: sqrt(mean_t Var_D(e_i + p_t)), where positions are vectors.
        tev/relative: raw mean over the raw mean before the first step.

    Raw readings of differently parametrised embeddings do not compare. Which rows and which degrees of
    freedom the paper used is open; our definition is all rows of the input embedding and population moments.

    Reference: Chung et al., arXiv 2409.07787; effective and relative are our definitions.
    """
    mean_position = None if snapshot.positions is None else snapshot.positions.float().mean(0)
    variance, covariance = row_moments(snapshot.embedding, against=mean_position)
    mean, std = mean_and_std(variance.sqrt())
    if callable(snapshot.transform):
        variance, covariance = row_moments(snapshot.embedding, snapshot.transform, against=mean_position)
        effective_mean, effective_std = mean_and_std(variance.sqrt())
    else:
        multiplier = abs(snapshot.transform)
        variance = variance * multiplier**2
        covariance = None if covariance is None else covariance * snapshot.transform
        effective_mean, effective_std = mean * multiplier, std * multiplier
    readings = {
        "tev/mean": mean,
        "tev/std": std,
        "tev/effective_mean": effective_mean,
        "tev/effective_std": effective_std,
        "tev/relative": mean / snapshot.at_start.get("tev/mean", mean),
    }
    if snapshot.positions is not None and covariance is not None:
        # mean_t Var(e + p_t) = Var(e) + mean_t Var(p_t) + 2 Cov(e, mean_t p_t)
        of_positions, _ = row_moments(snapshot.positions)
        together = (variance + of_positions.mean() + 2 * covariance).clamp(min=0).sqrt()
        readings["tev/effective_with_positions_mean"], readings["tev/effective_with_positions_std"] = mean_and_std(
            together
        )
    return {key: torch.as_tensor(value) for key, value in readings.items()}
