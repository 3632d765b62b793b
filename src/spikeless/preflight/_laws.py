"""Laws that initial weights are drawn from, and what scaling, shifting and cutting makes of them."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from spikeless.preflight.measurements import DeclaredInit

__all__ = ["UNKNOWN", "UNWRITTEN", "Law", "constant", "normal", "truncated", "uniform"]


@dataclass(frozen=True, kw_only=True)
class Law:
    """How the entries of a piece of memory are distributed.

    Attributes:
        kind: "unwritten", "unknown", "copied", "constant", "uniform", or "normal", cut or not.
        mean: of the normal before a cut, or the constant.
        scale: std of the normal before a cut, of an unknown law the std if it is known.
        low, high: where it is cut; the bounds of a uniform law.
    """

    kind: Literal["unwritten", "unknown", "copied", "constant", "uniform", "normal"]
    mean: float = math.nan
    scale: float = math.nan
    low: float = -math.inf
    high: float = math.inf

    def times(self, factor: float) -> "Law":
        """The law of the entries times a number."""
        if self.kind == "unwritten" or not math.isfinite(factor):
            return self if self.kind == "unwritten" else UNKNOWN
        if factor == 0:
            return constant(0.0)
        low, high = sorted((self.low * factor, self.high * factor))
        return replace(self, mean=self.mean * factor, scale=self.scale * abs(factor), low=low, high=high)

    def plus(self, shift: float) -> "Law":
        """The law of the entries plus a number."""
        return replace(self, mean=self.mean + shift, low=self.low + shift, high=self.high + shift)

    def clamped(self, low: float, high: float) -> "Law":
        """The law of the entries kept between two numbers; a normal's entries beyond them count as cut."""
        if self.kind == "constant":
            return constant(min(max(self.mean, low), high))
        if self.kind == "uniform" and (low > self.low or high < self.high):
            return UNKNOWN
        return replace(self, low=max(low, self.low), high=min(high, self.high)) if self.kind == "normal" else self

    def erfinv(self) -> "Law":
        """The law of the inverse error function of the entries: of a uniform law in [-1, 1] a cut normal."""
        if self.kind != "uniform" or self.low < -1 or self.high > 1:
            return UNKNOWN
        return truncated(0.0, math.sqrt(0.5), _erfinv(self.low), _erfinv(self.high))

    def declared(self) -> DeclaredInit:
        """The law as a reading."""
        if self.kind in ("unwritten", "copied"):
            return DeclaredInit(written=self.kind == "copied", distribution="copied" if self.kind == "copied" else "")
        if self.kind == "constant":
            known = math.isfinite(self.mean)
            mean = self.mean if known else None
            return DeclaredInit(written=True, distribution="constant", std=0.0, mean=mean)
        if self.kind == "uniform":
            std, mean = (self.high - self.low) / math.sqrt(12), (self.high + self.low) / 2
            return DeclaredInit(written=True, distribution="uniform", std=std, mean=mean)
        if self.kind == "unknown":
            return DeclaredInit(written=True, std=self.scale if math.isfinite(self.scale) else None)
        if self.low == -math.inf and self.high == math.inf:
            return DeclaredInit(written=True, distribution="normal", std=self.scale, mean=self.mean)
        low, high = ((bound - self.mean) / self.scale if self.scale else bound for bound in (self.low, self.high))
        shift, std = _moments_after_cut(low, high)
        return DeclaredInit(
            written=True,
            distribution="truncated normal",
            std=self.scale * std,
            mean=self.mean + self.scale * shift,
            low=low,
            high=high,
        )


UNKNOWN = Law(kind="unknown")
UNWRITTEN = Law(kind="unwritten")


def constant(value: float) -> Law:
    """All entries equal."""
    return Law(kind="constant", mean=value, scale=0.0)


def uniform(low: float, high: float) -> Law:
    """U(low, high)."""
    return Law(kind="uniform", low=low, high=high)


def normal(mean: float, std: float) -> Law:
    """N(mean, std^2); a constant if the std is 0."""
    return Law(kind="normal", mean=mean, scale=std) if std else constant(mean)


def truncated(mean: float, std: float, low: float, high: float) -> Law:
    """N(mean, std^2) without what lies outside [low, high]."""
    return Law(kind="normal", mean=mean, scale=std, low=low, high=high)


def _moments_after_cut(low: float, high: float) -> tuple[float, float]:
    """Mean and std of a standard normal cut to [low, high].

    With Z = Phi(high) - Phi(low): mean (phi(low) - phi(high)) / Z, variance
    1 + (low phi(low) - high phi(high)) / Z - mean^2.
    """
    inside = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
    if inside < 1e-12:  # only a tail is left, or nothing
        return 0.0, math.nan
    mean = (_density(low) - _density(high)) / inside
    edges = (_weighted(low) - _weighted(high)) / inside
    return mean, math.sqrt(max(0.0, 1 + edges - mean * mean))


def _density(x: float) -> float:
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _weighted(x: float) -> float:
    return x * _density(x) if math.isfinite(x) else 0.0


def _erfinv(y: float) -> float:
    """The inverse error function, by bisection."""
    if abs(y) == 1:
        return math.copysign(math.inf, y)
    low, high = -6.0, 6.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erf(middle) < y else (low, middle)
    return (low + high) / 2
