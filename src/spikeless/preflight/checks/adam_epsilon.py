"""Gradients against Adam's epsilon, and parameters that get no gradient at all."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from spikeless.preflight.findings import Finding
from spikeless.preflight.measurements import BatchReading, Measurements, ModelReading, TensorReading
from spikeless.words import counted

__all__ = ["adam_epsilon"]

MARGIN = 10.0
FAR_BELOW = 0.01
SHARE_OF_ROLE = 0.5

_KEY_BIAS = re.compile(
    r"(^|[._])(k|key|keys|wk|to_k)(_proj|_lin|_linear)?(\.\w+)?\.bias$|(^|\.)(b_k|bias_k)$", re.IGNORECASE
)


def adam_epsilon(measured: Measurements) -> list[Finding]:
    """Warns of tensors whose gradient RMS [loss/weight] is below 10 eps, and of those whose gradient is exactly zero.

    Adam's first update of an entry is g / (|g| + eps): 0.91 of the full step at |g| = 10 eps, a half at eps, 0.01
    at eps / 100. It fails where more than half of the tensors of a role are below eps / 100: such a role hardly
    trains. Rows of an embedding that are not in the batch have no gradient: its RMS is taken over as many rows as
    the batch can hold. Key biases are left out: the softmax cancels them, so their gradient is zero but for rounding.

    Reference: Wortsman et al., arXiv 2309.14322 (gradient RMS against eps as a leading indicator); Everett et al.,
        arXiv 2407.05872 (eps has to fit the gradients' scale). The thresholds are ours.
    """
    judged = {
        tensor: rms
        for tensor in measured.tensors
        if not _is_key_bias(tensor) and math.isfinite(rms := _rms(tensor, measured.model, measured.batch))
    }
    dead = [tensor for tensor, rms in judged.items() if rms == 0]
    alive = {tensor: rms for tensor, rms in judged.items() if rms > 0}
    findings = [_no_gradient(dead, measured.tensors)] if dead else []
    eps = measured.learning_rate.eps if measured.learning_rate else 0.0
    if alive and eps > 0:
        findings.append(_against(eps, alive))
    elif alive and not dead:
        message = (
            f"all {counted(len(alive), 'parameter')} get a gradient; its smallest RMS is {min(alive.values()):.2g}"
        )
        findings.append(Finding(check="adam_epsilon", code="gradient", severity="pass", where="model", message=message))
    return findings


def _rms(tensor: TensorReading, model: ModelReading, batch: BatchReading | None) -> float:
    """Gradient RMS, of an embedding over no more rows than the batch can hold; NaN if it was not measured."""
    rms, rows = tensor.gradient_rms, math.inf
    if rms is None:
        return math.nan
    if batch is not None and tensor.role == "token_embedding" and not model.tied:  # a tied head reaches all rows
        rows = batch.tokens
    if batch is not None and tensor.role == "position_embedding":
        rows = batch.tokens / max(1, batch.sequences)
    return rms * math.sqrt(max(1.0, tensor.shape[0] / max(1, rows))) if tensor.shape else rms


def _is_key_bias(tensor: TensorReading) -> bool:
    return len(tensor.shape) == 1 and (tensor.role == "key" or _KEY_BIAS.search(tensor.name) is not None)


def _no_gradient(dead: Sequence[TensorReading], tensors: Sequence[TensorReading]) -> Finding:
    zero = [each.name for each in tensors if each.zeros == 1 and (len(each.shape) > 1 or math.prod(each.shape) == 1)]
    names = _list(each.name for each in dead)
    return Finding(
        check="adam_epsilon",
        code="no-gradient",
        severity="warn",
        where=dead[0].name if len(dead) == 1 else "model",
        message=f"{counted(len(dead), 'parameter gets', 'parameters get')} a gradient of exactly zero: {names}",
        value=float(len(dead)),
        threshold=0.0,
        why="a parameter that the loss depends on has a gradient; rounding leaves no exact zero in a whole tensor",
        consequence="Adam does not move them; weight decay alone does, towards zero.",
        advice=f"Zeros ({_list(zero)}) cut gradients off; if meant, this ends with the first step."
        if zero
        else "Find what cuts them off: a detach, a parameter without use, dead activations; or freeze them.",
    )


def _against(eps: float, alive: dict[TensorReading, float]) -> Finding:
    low = {tensor: rms for tensor, rms in alive.items() if rms < MARGIN * eps}
    worst = min(alive, key=lambda tensor: alive[tensor])
    smallest = alive[worst]
    if not low:
        return Finding(
            check="adam_epsilon",
            code="epsilon",
            severity="pass",
            where="model",
            message=f"the smallest gradient RMS is {smallest:.2g} in {worst.name}, {smallest / eps:.2g} eps",
            value=smallest,
            threshold=MARGIN * eps,
        )
    stuck = _stuck_roles(eps, alive)
    roles = sorted({tensor.role or "unknown" for tensor in low})
    kept = smallest / (smallest + eps)
    lost = f"; most of {', '.join(stuck)} below eps / {1 / FAR_BELOW:g}" if stuck else ""
    return Finding(
        check="adam_epsilon",
        code="epsilon",
        severity="fail" if stuck else "warn",
        where=worst.name if len(low) == 1 else "model",
        message=f"the gradient RMS is below {MARGIN:g} eps (eps={eps:g}) in {len(low)} of {len(alive)} tensors "
        f"({', '.join(roles)}), smallest {smallest:.2g} in {worst.name}{lost}",
        value=smallest,
        threshold=(FAR_BELOW if stuck else MARGIN) * eps,
        why="more than half of a role's tensors get less than 1 % of Adam's step"
        if stuck
        else "at |g| = 10 eps the update g / (|g| + eps) loses 9 %, at eps a half; larger batches have less gradient",
        consequence=f"{worst.name} moves by {kept:.2g} of the learning rate, and by less when its gradient shrinks.",
        advice=f"Lower eps to {_below(smallest):.0e} or less.",
    )


def _stuck_roles(eps: float, alive: dict[TensorReading, float]) -> list[str]:
    """Roles of which more than half of the tensors are far below eps."""
    of_role: dict[str, list[float]] = defaultdict(list)
    for tensor, rms in alive.items():
        if tensor.role:
            of_role[tensor.role].append(rms)
    return sorted(
        role for role, each in of_role.items() if sum(rms < FAR_BELOW * eps for rms in each) > SHARE_OF_ROLE * len(each)
    )


def _below(rms: float) -> float:
    """A power of ten, at least 100 times smaller."""
    return 10.0 ** math.floor(math.log10(rms / 100))


def _list(names: Iterable[str], shown: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
