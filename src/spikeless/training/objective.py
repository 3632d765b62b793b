"""The loss of a batch under a run's precision, and how that precision is chosen."""

import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from spikeless.errors import UserError
from spikeless.losses.cross_entropy import CrossEntropy
from spikeless.nn.transformer import Transformer
from spikeless.run import Precision
from spikeless.shapes import Tokens

__all__ = ["Objective", "choose_precision", "evaluate", "time_pass"]

WORTHWHILE = 0.95  # bf16 must take less than this share of fp32's time to be chosen


class Objective:
    """Mean next-token loss of a batch [nats/token].

    Args:
        model: in fp32.
        loss: over its hidden vectors.
        device: to which a batch is moved.
        precision: of matrix products.
        compiled: use torch.compile.
        documents: tells the documents in a batch's windows apart, their last targets included; see `nn.boundaries`.
    """

    def __init__(
        self,
        model: Transformer,
        loss: CrossEntropy,
        device: torch.device,
        precision: Precision,
        compiled: bool = False,
        documents: Callable[[Tokens], Tensor | None] = lambda _: None,
    ) -> None:
        self._model, self._loss, self._device, self._documents = model, loss, device, documents
        self._bf16 = precision == "bf16"
        self._hidden = torch.compile(model.hidden) if compiled else model.hidden

    def __call__(self, inputs: Tokens, targets: Tokens) -> Tensor:
        """The loss, a scalar on the device."""
        inputs, targets = inputs.to(self._device, non_blocking=True), targets.to(self._device, non_blocking=True)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            hidden = self._hidden(inputs, documents=self._documents_of(inputs, targets))
            return self._loss(hidden, self._model.output_weight, targets)

    def _documents_of(self, inputs: Tokens, targets: Tokens) -> Tensor | None:
        """Of the inputs [B, T]; whether a last end-of-text opens a document shows in what follows it."""
        documents = self._documents(torch.cat([inputs, targets[:, -1:]], dim=1))
        return None if documents is None else documents[:, :-1]


def evaluate(objective: Objective, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Mean loss over all tokens of some batches [nats/token].

    Raises:
        UserError: there is no batch.
    """
    total, tokens = 0.0, 0
    with torch.no_grad():
        for inputs, targets in batches:
            total += objective(inputs, targets).item() * targets.numel()
            tokens += targets.numel()
    if not tokens:
        raise UserError("there is nothing to evaluate: the data has no validation tokens")
    return total / tokens


def choose_precision(
    wanted: Precision, model: Transformer, loss: CrossEntropy, device: torch.device, batch: tuple[Tensor, Tensor]
) -> tuple[Precision, dict[str, float]]:
    """Resolve "auto" by the time of a real forward and backward pass in each precision.

    Returns:
        The precision, and the seconds measured of each (none if it was given). Nothing of the model changes.
    """
    if wanted != "auto":
        return wanted, {}
    seconds = {p: time_pass(Objective(model, loss, device, p), model, batch) for p in ("fp32", "bf16")}
    return ("bf16" if seconds["bf16"] < WORTHWHILE * seconds["fp32"] else "fp32"), seconds


def time_pass(objective: Objective, model: Transformer, batch: tuple[Tensor, Tensor]) -> float:
    """Time of a forward and backward pass [s]; nothing of the model changes."""
    parameters, best = list(model.parameters()), float("inf")
    for _ in range(3):  # the first one warms up; the least disturbed one counts
        started = time.perf_counter()
        gradients = torch.autograd.grad(objective(*batch), parameters)
        gradients[0].flatten()[0].item()  # wait for the device
        best = min(best, time.perf_counter() - started)
    return best
