"""Initial weights of one kind from layer to layer: one layer left at another scheme stands out."""

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from statistics import median, median_low

from spikeless.preflight.checks._tensors import at_worst, is_matrix, listed, relative_noise, written
from spikeless.preflight.findings import Finding
from spikeless.preflight.measurements import Measurements, TensorReading

__all__ = ["layers_alike"]

UNLIKE = 1.2
VERY_UNLIKE = 3.0
NOISE = 6.0
EXPONENTS = (0.0, -0.5, -1.0)
FEW = 4


def layers_alike(measured: Measurements) -> list[Finding]:
    """Compares matrices of one name and shape over the layers, by the factor to what the others say.

    They share a standard deviation, or it falls as 1/sqrt(l) or 1/l: the layer-indexed schemes. From these a tensor
    may differ by its sampling error of 1/sqrt(2 n), six times, and by 20 %, less than any two schemes differ: 1/sqrt(L)
    and 1/sqrt(2 L) are a factor of 1.4 apart. Three times off is what forgetting depth scaling in one layer does
    from 5 layers on. If more than a third of the tensors stand out, it is a scheme we do not know, and a warning.
    Where the building was watched, tensors of one kind drawn from different distributions are told too. The
    thresholds are ours.

    Reference: Zhang et al., arXiv 1908.11365 (depth-scaled initialisation by layer).
    """
    if measured.model.state != "initial":
        return []
    groups = _alike(measured)
    found = [finding for group in groups for finding in (*_outliers(group), *_distributions(group))]
    if not groups or found:
        return found
    return [
        Finding(
            check="layers_alike",
            code="layers",
            severity="pass",
            where="model",
            message=f"{len(groups)} kinds of matrices follow one scheme over the layers",
            threshold=UNLIKE,
        )
    ]


def _alike(measured: Measurements) -> list[list[TensorReading]]:
    """Matrices of one name but for its numbers, one role and one shape, at least two of them."""
    groups: dict[tuple[str | None, str, tuple[int, ...]], list[TensorReading]] = defaultdict(list)
    for each in measured.tensors:
        if each.layer is not None and is_matrix(each) and math.isfinite(each.std) and written(each):
            groups[each.role, re.sub(r"\d+", "*", each.name), each.shape].append(each)
    return [group for group in groups.values() if len(group) > 1]


def _outliers(group: list[TensorReading]) -> list[Finding]:
    drawn = [each for each in group if each.std > 0]
    if len(drawn) < 2:
        return []
    off = _deviations(drawn)
    bad = [each for each in drawn if off[each.name] > math.log(UNLIKE) + NOISE * relative_noise(each)]
    if not bad:
        return []
    worst = max(bad, key=lambda each: off[each.name])
    factor = math.exp(off[worst.name])
    few = 3 * len(bad) <= len(drawn)
    severe = few and factor > VERY_UNLIKE
    others = median(each.std for each in drawn if each not in bad) if few else median(each.std for each in drawn)
    return [
        Finding(
            check="layers_alike",
            code="layer-unlike" if few else "layers-irregular",
            severity="fail" if severe else "warn",
            where=bad[0].name,
            message=f"{listed(bad)} std {worst.std:.3g}{at_worst(bad)} where the same matrix of the "
            f"{len(drawn)} layers has {others:.3g}: a factor of {factor:.2g} from what their scheme says",
            value=factor,
            threshold=VERY_UNLIKE if severe else UNLIKE,
            why="layers of one scheme differ by sampling error only, and two schemes by a factor of 1.4 or more",
            consequence="This layer's Jacobian is unlike the others', and gradients jump there.",
            advice="Check which layers the initialisation reached, and whether its depth factor took the right index.",
        )
    ]


def _deviations(group: Sequence[TensorReading]) -> dict[str, float]:
    """|log| of the factor between each std and the law that fits most of them, by name."""
    candidates = []
    for exponent in EXPONENTS[: len(EXPONENTS) if len(group) >= FEW else 2]:
        logs = {each.name: math.log(each.std) - exponent * math.log((each.layer or 0) + 1) for each in group}
        centre = median_low(logs.values())
        candidates.append({name: abs(value - centre) for name, value in logs.items()})
    return min(candidates, key=lambda off: median(off.values()))


def _distributions(group: Sequence[TensorReading]) -> list[Finding]:
    kinds: dict[str, list[TensorReading]] = defaultdict(list)
    for each in group:
        if each.declared is not None and each.declared.distribution not in ("", "copied", "constant"):
            kinds[each.declared.distribution].append(each)
    if len(kinds) < 2:
        return []
    usual = max(kinds, key=lambda kind: len(kinds[kind]))
    bad = [each for kind, tensors in kinds.items() if kind != usual for each in tensors]
    return [
        Finding(
            check="layers_alike",
            code="distribution-unlike",
            severity="warn",
            where=bad[0].name,
            message=f"{listed(bad)} drawn from another distribution ({bad[0].declared.distribution}) than the others "
            f"({usual})"
            if bad[0].declared
            else "",
            why="one scheme draws a kind of matrix in one way in all layers",
            consequence="A layer that the initialisation did not reach keeps its constructor's weights.",
            advice="Check which layers the initialisation reached.",
        )
    ]
