"""Exact spectral norms of weight matrices, matrix-free."""

import torch

from spikeless.diagnostics.anatomy.matrices import Matrix
from spikeless.diagnostics.probes._lanczos import SingularValue, largest_singular_value

__all__ = ["spectral_norm"]

TOLERANCE = 1e-3
"""Relative residual; the value itself is off by about its square."""


def spectral_norm(matrix: Matrix, *, tolerance: float = TOLERANCE) -> SingularValue:
    """Largest singular value of a weight or of a product of low-rank factors [dimensionless].

    Matrix-free: a product of factors is never formed, a fused matrix never split.

    Reference: definitions, "Exact bound versus estimate".
    """
    d_out, d_in = matrix.shape
    weight = matrix.factors[0].weight
    like = torch.empty(0, dtype=torch.promote_types(weight.dtype, torch.float32), device=weight.device)
    ahead, back = matrix.apply, matrix.apply_transposed
    if d_in > d_out:
        ahead, back = back, ahead
    with torch.no_grad():
        return largest_singular_value(
            ahead, back, batch=1, size=min(d_in, d_out), like=like, tolerance=tolerance, most=min(d_in, d_out)
        )
