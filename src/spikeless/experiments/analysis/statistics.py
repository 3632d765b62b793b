"""What a handful of seeds can say: intervals, paired tests and rank correlations, with failed runs left in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy

__all__ = ["Interval", "PairedTest", "RankCorrelation", "least_p", "mean_interval", "paired_test", "rank_correlation"]

LEVEL = 0.95
"""Of all intervals."""

ENUMERATED = 16
"""Up to so many pairs all sign flips are tried; with more, `FLIPS` random ones are."""
FLIPS = 99_999
ROUNDING = 1e-10
"""Sums of differences that are closer than this share of the sum of their sizes are the same sum."""

FLIP_TEST = "exact sign-flip permutation test"
SAMPLED_FLIP_TEST = f"sign-flip permutation test, {FLIPS:,} random flips"
SIGN_TEST = "exact sign test"

Kind = Literal["spearman", "kendall"]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and where it may lie, in the unit of the values.

    Attributes:
        middle: the mean; infinite if one value is not finite, NaN if there is none.
        low: NaN where there is no interval: fewer than two values, or one that is not finite.
        high: likewise.
        n: values [runs].
    """

    middle: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Ours against the baseline, seed by seed.

    Attributes:
        differences: ours minus the baseline, by seed; 0 where both are infinite.
        median: of the differences; NaN if there is none, or if it lies between -inf and inf.
        low: of the order-statistic interval of the median, at least 95 %; it assumes no distribution. NaN below six
            pairs, which allow no such interval.
        high: likewise.
        p_value: two-sided; 1 if there is no pair.
        n: pairs, ties included [seeds].
        method: which test.
    """

    differences: tuple[float, ...]
    median: float
    low: float
    high: float
    p_value: float
    n: int
    method: str

    @property
    def least_p(self) -> float:
        """The smallest p that so many pairs could have given; ties carry no sign and do not count."""
        return least_p(
            sum(difference != 0 for difference in self.differences), sampled=self.method == SAMPLED_FLIP_TEST
        )


@dataclass(frozen=True, kw_only=True)
class RankCorrelation:
    """How far two quantities rank things alike.

    Attributes:
        value: from -1 to 1 [dimensionless]; NaN for fewer than three pairs or where one of the two is constant.
        low: of the 95 % bootstrap percentile interval; NaN where there is none.
        high: likewise.
        n: pairs.
        kind: "spearman", or "kendall" for tau-b.
    """

    value: float
    low: float
    high: float
    n: int
    kind: Kind


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The mean with its Student-t interval.

    A value that is not finite is a run that failed: the mean is infinite then and has no interval. One value has no
    interval either: its `low` and `high` are NaN.
    """
    numbers = np.asarray(values, dtype=float)
    if not np.isfinite(numbers).all():
        return Interval(middle=np.inf, low=np.nan, high=np.nan, n=numbers.size)
    middle = float(numbers.mean()) if numbers.size else np.nan
    if numbers.size < 2:
        return Interval(middle=middle, low=np.nan, high=np.nan, n=numbers.size)
    # Not `t.interval`: that is NaN where all values are equal.
    half = float(scipy.stats.t.ppf((1 + level) / 2, numbers.size - 1) * scipy.stats.sem(numbers))
    return Interval(middle=middle, low=middle - half, high=middle + half, n=numbers.size)


def paired_test(ours: Mapping[int, float], baseline: Mapping[int, float]) -> PairedTest:
    """Whether ours differs from the baseline, on the seeds that both have.

    Finite differences: the sign-flip permutation test of their mean (under the null hypothesis each difference could
    as well have had the other sign), exact up to 16 pairs. Else, as a mean would be infinite, the exact sign test,
    which drops ties.

    Args:
        ours: a value by seed; infinite, or NaN, for a run that failed.
        baseline: likewise.
    """
    pairs = [
        (_failed_is_infinite(ours[seed]), _failed_is_infinite(baseline[seed])) for seed in sorted({*ours} & {*baseline})
    ]
    differences = np.array([0.0 if a == b else a - b for a, b in pairs])
    if not np.isfinite(differences).all():
        untied = int(np.count_nonzero(differences))
        p_value = float(scipy.stats.binomtest(int((differences > 0).sum()), untied).pvalue)
        method = SIGN_TEST
    else:
        p_value = _flip_p(differences)
        method = FLIP_TEST if differences.size <= ENUMERATED else SAMPLED_FLIP_TEST
    median, low, high = _median(differences)
    return PairedTest(
        differences=tuple(map(float, differences)),
        median=median,
        low=low,
        high=high,
        p_value=p_value,
        n=differences.size,
        method=method,
    )


def least_p(n: int, sampled: bool = False) -> float:
    """The smallest two-sided p that n pairs without ties can give: all signs alike, 2 of 2^n.

    Args:
        n: pairs [seeds].
        sampled: by a test that tries random flips, not all.
    """
    return min(1.0, max(2.0 ** (1 - n), 1 / (1 + FLIPS) if sampled else 0.0))


def rank_correlation(
    x: Sequence[float], y: Sequence[float], kind: Kind = "spearman", seed: int = 0, resamples: int = 2000
) -> RankCorrelation:
    """The rank correlation of pairs, with a bootstrap interval over pairs.

    Pairs with a NaN are dropped; what is infinite, as the loss of a failed run, ranks as the largest. Resamples in
    which one of the two is constant have no correlation and are left out.

    Args:
        x: one a pair.
        y: one a pair.
        kind: of the correlation.
        seed: of the resampling.
        resamples: without any there is no interval.

    Raises:
        ValueError: x and y are not equally long, or there is no such kind.
    """
    if kind not in _CORRELATIONS:
        raise ValueError(f"there is no rank correlation {kind!r}; there are {', '.join(_CORRELATIONS)}")
    if len(x) != len(y):
        raise ValueError(f"{len(x)} values of x and {len(y)} of y are no pairs")
    both = np.array([x, y], dtype=float)
    both = both[:, ~np.isnan(both).any(axis=0)]
    ranks, n = scipy.stats.rankdata(both, axis=1), both.shape[1]
    if n < 3 or (np.ptp(ranks, axis=1) == 0).any():
        return RankCorrelation(value=np.nan, low=np.nan, high=np.nan, n=n, kind=kind)
    correlate = _CORRELATIONS[kind]
    value = float(correlate(ranks[:, None])[0])
    picks = np.random.default_rng(seed).integers(n, size=(resamples, n))
    resampled = ranks[:, picks]
    resampled = resampled[:, (np.ptp(resampled, axis=2) > 0).all(axis=0)]
    low = high = np.nan
    if resampled.shape[1]:
        low, high = np.quantile(correlate(resampled), ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return RankCorrelation(value=value, low=float(low), high=float(high), n=n, kind=kind)


def _failed_is_infinite(value: float) -> float:
    return np.inf if np.isnan(value) else value


def _median(values: np.ndarray) -> tuple[float, float, float]:
    """The median and its order-statistic interval."""
    if not values.size:
        return np.nan, np.nan, np.nan
    with np.errstate(invalid="ignore"):  # -inf + inf
        median = float(np.median(values))
    interval = scipy.stats.quantile_test(values, p=0.5).confidence_interval(LEVEL)
    return median, float(interval.low), float(interval.high)


def _flip_p(differences: np.ndarray) -> float:
    """The two-sided p of the sign-flip test.

    Not `scipy.stats.permutation_test`: its tolerance is relative to the observed sum, so that 0.1 + 0.2 - 0.3, which
    is zero but for rounding, is not tied with its mirror image.
    """
    n = differences.size
    if n <= ENUMERATED:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    else:
        signs = np.random.default_rng(0).choice((-1, 1), size=(FLIPS, n))
    size = np.abs(differences).sum()
    extreme = np.abs(signs @ differences) >= abs(differences.sum()) - ROUNDING * size
    # Among random flips the observed signs are one more.
    return float(extreme.mean()) if n <= ENUMERATED else float((extreme.sum() + 1) / (FLIPS + 1))


def _spearman(pairs: np.ndarray) -> np.ndarray:
    """Of (2, samples, pairs), one a sample; `scipy.stats.spearmanr` takes one sample at a time."""
    ranks = scipy.stats.rankdata(pairs, axis=2)
    x, y = ranks - ranks.mean(axis=2, keepdims=True)
    return (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))


def _kendall(pairs: np.ndarray) -> np.ndarray:
    return np.array([scipy.stats.kendalltau(x, y, method="asymptotic")[0] for x, y in zip(*pairs, strict=True)])


_CORRELATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"spearman": _spearman, "kendall": _kendall}
