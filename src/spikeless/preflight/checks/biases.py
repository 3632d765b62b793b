"""Biases before training."""

import math
import re

from spikeless.preflight.checks._tensors import at_worst, is_matrix, listed
from spikeless.preflight.findings import Finding
from spikeless.preflight.measurements import Measurements, TensorReading

__all__ = ["biases"]

LARGE = 0.05

_ADDED = re.compile(r"bias|beta|shift|offset|(^|_)b[qkvo12]?($|_)", re.IGNORECASE)


def biases(measured: Measurements) -> list[Finding]:
    """Looks for initial biases that are neither zero nor drawn small.

    Zero is usual. `torch.nn.Linear` draws from U(+-1/sqrt(d_in)), which is within its bounds here, and a draw of
    N(0, 0.02^2) is below 0.05 too. More is the same for every token: behind a norm, where a feature's std is 1, it
    shifts what the sub-layer computes before it has seen data. It is a warning at most: gates are sometimes opened
    or closed by a bias. Vectors whose name does not say that they are added are left out: they may be gains of a
    norm without a module, or scales of a residual branch. The threshold is ours.

    Reference: He et al. 2015, as `torch.nn.Linear` uses it.
    """
    if measured.model.state != "initial":
        return []
    found = [
        each for each in measured.tensors if _is_bias(each) and math.isfinite(each.std) and math.isfinite(each.mean)
    ]
    fans = {each.name.removesuffix("weight"): each.fan_in for each in measured.tensors if is_matrix(each)}
    large = [each for each in found if _rms(each) > _limit(each, fans)]
    if not found:
        return []
    if not large:
        return [
            Finding(
                check="biases",
                code="bias",
                severity="pass",
                where="model",
                message=f"{len(found)} biases are zero or small",
                value=max(map(_rms, found)),
                threshold=LARGE,
            )
        ]
    worst = max(large, key=_rms)
    return [
        Finding(
            check="biases",
            code="large",
            severity="warn",
            where=large[0].name,
            message=f"{listed(large)} root mean square {_rms(worst):.3g}{at_worst(large)} before training",
            value=_rms(worst),
            threshold=_limit(worst, fans),
            why="biases start at zero, at U(+-1/sqrt(d_in)), or with the std of weights, about 0.02",
            consequence="Every token gets the same shift, which grows along the residual stream.",
            advice="Fill biases with zeros.",
        )
    ]


def _is_bias(tensor: TensorReading) -> bool:
    if tensor.role == "norm":
        return tensor.name.endswith("bias")
    return tensor.role == "bias" and _ADDED.search(tensor.name.rpartition(".")[2]) is not None


def _rms(tensor: TensorReading) -> float:
    return math.hypot(tensor.std, tensor.mean)


def _limit(tensor: TensorReading, fans: dict[str, int]) -> float:
    fan_in = fans.get(tensor.name.removesuffix("bias"), 0)
    return max(LARGE, 1 / math.sqrt(fan_in)) if fan_in else LARGE
