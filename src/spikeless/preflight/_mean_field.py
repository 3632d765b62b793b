"""How the variance of token vectors, and what two tokens share, go through a model at initialisation.

In a wide model with independent Gaussian weights the entries of a token's vector are Gaussian, and all that a
layer does to them is told by a kernel: K(s, t) = E[x_s . x_t] / D for every pair of tokens. It starts diagonal
(two tokens have nothing in common) and each sub-layer adds the kernel of its output. Off the diagonal stands what
tokens share: the averaged history, which attention, unlike the tokens' own part, does not average away.

Reference: Lee et al. 2018 (arXiv 1711.00165) and Hron et al. 2020 (arXiv 2006.10540) for the limit of infinite width.
Ours: positions in groups, and the expectation of a ratio of sums in attention as a ratio of expectations.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from spikeless.errors import UserError, nearest

__all__ = ["Kernel", "Positions", "activation", "attend", "causal_norm", "feed_forward", "normalise", "second_moments"]

Array = NDArray[numpy.float64]
SINGLE = 48  # so many first positions are computed one by one, the later ones in groups
GROWTH = 1.15  # each group is larger than the one before it by this factor
LARGEST_LOGIT_VARIANCE = 50.0  # from there on every query looks at a single key
HERMITE_ORDERS = 24
NODES, WEIGHTS = numpy.polynomial.hermite_e.hermegauss(120)
WEIGHTS = WEIGHTS / math.sqrt(2 * math.pi)


@dataclass(frozen=True, kw_only=True)
class Positions:
    """Token positions 1 to T in groups that are computed as one.

    Attributes:
        counts: tokens in each group.
        visible: [query group, key group], tokens that a query sees on average, itself included.
    """

    counts: Array
    visible: Array

    @staticmethod
    def of(tokens: int) -> "Positions":
        """The groups of a sequence: single positions at first, then groups that grow."""
        counts, left, size = [1.0] * min(SINGLE, tokens), tokens - SINGLE, 1.0
        while left > 0:
            size *= GROWTH
            counts.append(min(math.ceil(size), left))
            left -= math.ceil(size)
        array = numpy.array(counts, dtype=float)
        visible = numpy.tril(numpy.broadcast_to(array, (len(counts), len(counts))), -1)
        return Positions(counts=array, visible=visible + numpy.diag((array + 1) / 2))

    def median(self, values: Array) -> float:
        """The median over tokens of a value per group."""
        order = numpy.argsort(values)
        below = numpy.cumsum(self.counts[order])
        return float(values[order][numpy.searchsorted(below, below[-1] / 2)])


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """E[x_s . x_t] / D.

    Attributes:
        own: of a token with itself, [group]: the variance of its vector.
        other: of two different tokens, [group, group].
    """

    own: Array
    other: Array

    @staticmethod
    def independent(variance: float, groups: int) -> "Kernel":
        """Tokens with nothing in common."""
        return Kernel(own=numpy.full(groups, variance), other=numpy.zeros((groups, groups)))

    def __add__(self, right: "Kernel") -> "Kernel":
        """Of the sum of independent vectors."""
        return Kernel(own=self.own + right.own, other=self.other + right.other)

    def __mul__(self, factor: float) -> "Kernel":
        """Of vectors whose variance is multiplied."""
        return Kernel(own=self.own * factor, other=self.other * factor)


def normalise(kernel: Kernel, eps: float) -> Kernel:
    """Of the vectors after a norm without gain."""
    scale = 1 / numpy.sqrt(numpy.maximum(kernel.own + eps, numpy.finfo(float).tiny))
    return Kernel(own=kernel.own * scale**2, other=kernel.other * scale[:, None] * scale)


def attend(kernel: Kernel, positions: Positions, logit_variance: float) -> Kernel:
    """Of the average of the vectors with causal softmax weights; the logits z are Gaussian.

    cov(z_ts, z_t's') = v K(t, t') K(s, s') for normed vectors, so with e^z / sum e^z replaced by its annealed form

        K'(t, t') = sum_ss' e^(v K(t, t') K(s, s')) K(s, s') / sum_ss' e^(v K(t, t') K(s, s')),    s <= t, s' <= t'

    v = 0 is the plain causal average: variance 1/t for independent tokens. Over 48 tokens the annealed variance is too
    large by less than 1 % at v = 0.2, by 8 % at v = 1, by 44 % at v = 2. The exponential is a series in v, so that the
    sums are matrix products. Rotary positions turn the shared part of the keys; that is left out.
    """
    v = min(logit_variance, LARGEST_LOGIT_VARIANCE)
    rows = numpy.arange(len(positions.counts))
    first = numpy.minimum(rows[:, None], rows)

    def sums(power: int) -> Array:
        other, own = kernel.other**power, kernel.own**power
        common = (positions.visible * (own - numpy.diagonal(other))).sum(1)  # a token that both see is the same one
        return positions.visible @ other @ positions.visible.T + common[first]

    above_own = below_own = numpy.zeros(len(rows))
    above = below = numpy.zeros((len(rows), len(rows)))
    current, coefficient = sums(0), math.exp(-v)
    for order in range(math.ceil(v + 8 * math.sqrt(v) + 4)):
        following = sums(order + 1)
        own, other = coefficient * kernel.own**order, coefficient * kernel.other**order
        above_own, below_own = above_own + own * following.diagonal(), below_own + own * current.diagonal()
        above, below = above + other * following, below + other * current
        current, coefficient = following, coefficient * v / (order + 1)
    return Kernel(own=above_own / below_own, other=above / below)


def feed_forward(kernel: Kernel, variance: float, name: str, gate: float | None = None) -> Kernel:
    """Of the inner vector F(W_1 x), or F(W_gate x) * (W_up x), for normed x.

    With z = sqrt(q) n the Hermite coefficients a_k of F(sqrt(q) n) give E[F(z_s) F(z_t)] = sum_k a_k^2 rho^k.

    Args:
        kernel: of the vectors after the norm.
        variance: of an entry of W_1 x (or W_up x) for a vector of variance one.
        name: of the activation.
        gate: of an entry of W_gate x, likewise; None if there is no gate.
    """
    own = float(numpy.mean(kernel.own))
    rho = kernel.other / numpy.maximum(numpy.sqrt(kernel.own[:, None] * kernel.own), numpy.finfo(float).tiny)
    coefficients = _hermite(name, math.sqrt((variance if gate is None else gate) * own))
    other: Array = numpy.polynomial.polynomial.polyval(rho, coefficients**2).astype(numpy.float64)
    squares = numpy.full_like(kernel.own, second_moments(name, (variance if gate is None else gate) * own)[0])
    if gate is None:
        return Kernel(own=squares, other=other)
    return Kernel(own=squares * variance * kernel.own, other=other * variance * kernel.other)


def second_moments(name: str, variance: float) -> tuple[float, float]:
    """E[F(z)^2] and E[F'(z)^2] for z ~ N(0, variance), by Gauss-Hermite quadrature."""
    function, z, step = activation(name), math.sqrt(variance) * NODES, 1e-5
    slope = (function(z + step) - function(z - step)) / (2 * step)
    return float(WEIGHTS @ function(z) ** 2), float(WEIGHTS @ slope**2)


def _hermite(name: str, std: float) -> Array:
    values = activation(name)(std * NODES) * WEIGHTS
    before, now, found = numpy.zeros_like(NODES), numpy.ones_like(NODES), []
    for order in range(HERMITE_ORDERS):  # orthonormal: sqrt(k + 1) h_(k+1) = z h_k - sqrt(k) h_(k-1)
        found.append(values @ now)
        before, now = now, (NODES * now - math.sqrt(order) * before) / math.sqrt(order + 1)
    return numpy.array(found)


def activation(name: str) -> Callable[[Array], Array]:
    """An activation by our name or by that of transformers.

    Raises:
        UserError: it is not known.
    """
    name = _THEIR_NAMES.get(name, name)
    if name not in _ACTIVATIONS:
        raise UserError(f"no theory for the activation {name!r}; {nearest(name, tuple(_ACTIVATIONS), 'activation')}")
    return _ACTIVATIONS[name]


def _sigmoid(z: Array) -> Array:
    return 0.5 * (1 + numpy.tanh(z / 2))


_erf = numpy.vectorize(math.erf)
_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda z: 0.5 * z * (1 + _erf(z / math.sqrt(2))),
    "gelu_tanh": lambda z: 0.5 * z * (1 + numpy.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))),
    "quick_gelu": lambda z: z * _sigmoid(1.702 * z),
    "relu": lambda z: numpy.maximum(z, 0.0),
    "relu2": lambda z: numpy.maximum(z, 0.0) ** 2,
    "silu": lambda z: z * _sigmoid(z),
    "tanh": numpy.tanh,
    "linear": lambda z: z,
}
_THEIR_NAMES = {
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python": "gelu",
    "swish": "silu",
}


@functools.cache
def causal_norm(tokens: int) -> float:
    """Spectral norm of the uniform causal average over so many tokens; below 2, its limit.

    Row t of A has t times 1/t: the Cesaro operator, whose norm is 2 (Hardy's inequality) in the limit; 1.65 for 128
    tokens. Power iteration with A and its transpose as cumulative sums.
    """
    t = numpy.arange(1, tokens + 1)
    vector = 1 / numpy.sqrt(t)
    norm = 1.0
    for _ in range(200):
        mixed = numpy.cumsum(vector) / t
        norm = float(numpy.linalg.norm(mixed) / numpy.linalg.norm(vector))
        vector = numpy.cumsum((mixed / t)[::-1])[::-1]
        vector /= numpy.linalg.norm(vector)
    return norm
