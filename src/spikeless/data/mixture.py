"""Several sources in fixed shares: how a mixture is written, and whose turn it is."""

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from math import lcm

import numpy as np

from spikeless.data.shards import Tokens
from spikeless.data.spec import split_unquoted
from spikeless.errors import UserError

__all__ = ["Mixture", "parse_mixture"]

PREFIX = "mix:"
USAGE = "mix:0.7*SPEC+0.3*SPEC"
_NEXT = re.compile(r"\+(?=\s*[0-9.]+(?:[eE][-+]?[0-9]+)?\s*\*)")
_TERM = re.compile(r"(?P<weight>[0-9]{0,18}\.?[0-9]{1,18})\s*\*\s*(?P<spec>.+)", re.DOTALL)
PERIOD = 1 << 16
"""The schedule repeats after so many samples at most; shares that need longer are rounded to it."""


def parse_mixture(spec: str) -> tuple[tuple[Fraction, str], ...]:
    """Shares, which add up to 1, and specs of the sources of a data spec; a spec that is no mixture is one source.

    A `+` separates two sources if a number and `*` follow it. Weights are relative: `mix:3*A+1*B` is 3/4 and 1/4.

    Raises:
        UserError: not of this form, a weight of 0, or a mixture within a mixture.
    """
    if not spec.strip().startswith(PREFIX):
        return ((Fraction(1), spec),)
    terms = []
    for term in split_unquoted(_NEXT, spec.strip().removeprefix(PREFIX)):
        match = _TERM.fullmatch(term.strip())
        if not match:
            raise UserError(f"cannot read {term!r} in the mixture {spec!r}; write {USAGE}")
        if match["spec"].startswith(PREFIX):
            raise UserError(f"the mixture {spec!r} holds another one; write all sources side by side: {USAGE}")
        if not (weight := Fraction(match["weight"])):
            raise UserError(f"the mixture {spec!r} gives {match['spec']!r} no share; leave it out, or write {USAGE}")
        terms.append((weight, match["spec"]))
    total = sum(weight for weight, _ in terms)
    for weight, each in terms:
        if weight / total * PERIOD < 1:
            raise UserError(f"the mixture {spec!r} gives {each!r} less than 1/{PERIOD} of the samples; leave it out")
    return tuple((weight / total, each) for weight, each in terms)


class Mixture:
    """Tokens of several sources, read by turns.

    Whose turn sample g is depends on g alone. Of any samples 0 … g - 1 each source has its share, to within one.
    Shares that do not fit into a period of 65,536 samples are rounded to one that does.
    """

    def __init__(self, parts: Sequence[Tokens], shares: Sequence[Fraction]) -> None:
        assert len(parts) == len(shares) and sum(shares) == 1
        self.parts, self.shares = tuple(parts), tuple(shares)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def largest(self) -> int:
        """The largest id of all parts; all are read."""
        return max(part.largest for part in self.parts)

    def turns(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whose turn each sample is, and how many turns that source had before; int64 like `samples`."""
        sources, before, counts = self._period
        cycles, places = np.divmod(samples, len(sources))
        whose = sources[places]
        return whose, cycles * counts[whose] + before[places]

    @cached_property
    def _period(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One period of turns, the turns that each source had before, and the turns of each in all.

        At every place the source that is furthest behind its share takes the turn, of those that may take one without
        being ahead of it (Tijdeman's chairman assignment, which keeps every prefix within one of the shares).

        Reference: Tijdeman, "The chairman assignment problem", Discrete Mathematics 32, 1980.
        """
        length = lcm(*(share.denominator for share in self.shares))
        counts = [int(share * length) for share in self.shares]
        if length > PERIOD:
            length, counts = PERIOD, _rounded(self.shares, PERIOD)
        sources, before, had = [], [], [0] * len(counts)
        for place in range(length):
            open_ = [i for i, count in enumerate(counts) if (place + 1) * count > had[i] * length]
            chosen = min(open_, key=lambda i: (-(-(had[i] + 1) * length // counts[i]), i))
            sources.append(chosen)
            before.append(had[chosen])
            had[chosen] += 1
        return np.array(sources), np.array(before), np.array(counts)


def _rounded(shares: Sequence[Fraction], length: int) -> list[int]:
    """Whole numbers that add up to `length` and are nearest to the shares, each at least 1."""
    counts = [max(1, int(share * length)) for share in shares]
    order = sorted(range(len(shares)), key=lambda i: counts[i] - shares[i] * length)
    for index in range(length - sum(counts)):
        counts[order[index % len(order)]] += 1
    while sum(counts) > length:
        counts[max(range(len(counts)), key=counts.__getitem__)] -= 1
    return counts
