"""Whether a quantity grows over depth exponentially, linearly, or not."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["growth_over_depth"]

FLAT = 1.1  # ratio of largest to smallest


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Two fits.

    Attributes:
        log_slope: d log q / d layer of the exponential fit [1/layer]; 0 is flat.
        linear_slope: d q / d layer of the linear fit.
        better: the one with the smaller squared error, or "flat".
        ratio: last over first.
    """

    log_slope: float
    linear_slope: float
    better: Literal["exponential", "linear", "flat"]
    ratio: float


def growth_over_depth(values: Sequence[float]) -> Growth | None:
    """Least-squares fits of a positive quantity over the layers; None if there are fewer than three or one is not > 0.

    The exponential is fitted to the logarithm, the line to the values; both errors are compared on the values.

    Reference: condition "variance over depth" of arXiv 2409.07787, section 3.2, in our definition.
    """
    q = np.asarray(values, dtype=float)
    if len(q) < 3 or not (np.isfinite(q) & (q > 0)).all():
        return None
    layers = np.arange(len(q))
    log_slope, log_start = np.polyfit(layers, np.log(q), 1)
    slope, start = np.polyfit(layers, q, 1)
    with np.errstate(over="ignore"):
        exponential = float(np.square(np.exp(log_start + log_slope * layers) - q).sum())
    linear = float(np.square(start + slope * layers - q).sum())
    better = "flat" if q.max() / q.min() < FLAT else "exponential" if exponential < linear else "linear"
    return Growth(
        log_slope=float(log_slope), linear_slope=float(slope), better=better, ratio=math.exp(math.log(q[-1] / q[0]))
    )
