"""Which techniques would help, with their effect computed: theory is evaluated again with each one applied."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from spikeless import stabilizers
from spikeless.config import diff, names_in
from spikeless.errors import UserError
from spikeless.preflight.findings import Suggestion
from spikeless.preflight.measurements import Theory
from spikeless.preflight.strengths import strengths_of
from spikeless.preflight.theory import theory
from spikeless.run import RunConfig

__all__ = ["IMPROVEMENT", "QUANTITIES", "QUANTITY_OF_CODE", "Quantity", "suggestions"]

IMPROVEMENT = 1.5  # estimates are good to a few tens of percent; a smaller effect is not worth a technique


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number of theory that should be small.

    Attributes:
        read: takes it from theory; None if there is none.
        per_block: it is a sum of logarithms over the blocks; it has to fall by log(1.5) for each of them.
    """

    read: Callable[[Theory], float | None]
    per_block: bool = False

    def improves(self, before: float, after: float, blocks: int) -> bool:
        """Whether the change is one that counts."""
        if self.per_block:
            return before - after >= blocks * math.log(IMPROVEMENT)
        return before >= IMPROVEMENT * after


QUANTITIES = {
    "first_layer_ffn_gain": Quantity(read=lambda t: t.first_layer_ffn_gain),
    "first_layer_ffn_gain_with_positions": Quantity(read=lambda t: t.first_layer_ffn_gain_with_positions),
    "log_gain": Quantity(read=lambda t: t.log_gain, per_block=True),
    "largest_gain": Quantity(read=lambda t: max((s.gain for s in t.sub_layers), default=None)),
    "largest_sub_layer": Quantity(
        read=lambda t: max((_strength(s.gain, s.shortcut) for s in t.sub_layers), default=None)
    ),
    "residual_growth": Quantity(
        read=lambda t: (
            t.sub_layers[-1].shortcut / t.sub_layers[0].shortcut
            if t.sub_layers and t.sub_layers[0].shortcut > 0
            else None
        )
    ),
}
"""By name, as `Suggestion.quantity` says it. largest_gain: of (15) and (20) over the sub-layers. largest_sub_layer:
the same before it is divided by the shortcut. residual_growth: the variance that enters the last sub-layer over the
first's."""

QUANTITY_OF_CODE = {
    "first-layer-gain": "first_layer_ffn_gain",
    "first-layer-jacobian": "largest_gain",
    "small-shortcut": "first_layer_ffn_gain_with_positions",
    "large-sub-layer": "largest_sub_layer",
    "gradient-growth": "log_gain",
    "gradient-not-finite": "log_gain",
    "residual-growth": "residual_growth",
}
"""Which number a technique must improve to be suggested for a finding with that code."""


def suggestions(run: RunConfig, quantity: str, tokens: int, at_most: int = 3) -> tuple[Suggestion, ...]:
    """Techniques that lower a number of theory by a factor of 1.5 or more, best first.

    Every technique is tried with its default arguments. Left out are those that the run has, that exclude one that it
    has, and those whose header says that they prevent nothing: controls.

    Args:
        run: a run of ours, or `proxy_run` of another model.
        quantity: a key of QUANTITIES. Sums of logarithms must fall by log(1.5) per block instead.
        tokens: in a sequence.
        at_most: how many.
    """
    judged = QUANTITIES[quantity]
    before = judged.read(theory(strengths_of(run, tokens)))
    if before is None:
        return ()
    found: list[Suggestion] = []
    for name in names_in("stabilizers"):
        header = stabilizers.read_header(name)
        if header is None or header.prevents.startswith("nothing"):
            continue
        treated = _treated(run, name)
        after = None if treated is None else judged.read(theory(strengths_of(treated, tokens)))
        if after is not None and judged.improves(before, after, run.model.num_layers):
            found.append(
                Suggestion(
                    technique=name,
                    quantity=quantity,
                    before=before,
                    after=after,
                    summary=header.summary,
                    cost=header.cost,
                )
            )
    return tuple(sorted(found, key=lambda each: (float(f"{each.after:.3g}"), each.technique))[:at_most])


def _treated(run: RunConfig, name: str) -> RunConfig | None:
    """The run with a technique, or None if it cannot be applied or changes nothing."""
    try:
        treated = stabilizers.apply(run, [name])
        treated.check()
    except UserError:
        return None
    return treated if any(not each.path.startswith("techniques") for each in diff(run, treated)) else None


def _strength(gain: float, shortcut: float) -> float:
    return gain * shortcut if shortcut > 0 else math.inf
