"""The loss's gradient over depth: flat, or growing towards the shallow layers."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from spikeless.diagnostics.anatomy import Anatomy
from spikeless.diagnostics.anatomy.blocks import BlockCall, watch_blocks

__all__ = ["gradient_flow"]


@dataclass(frozen=True, kw_only=True)
class GradientFlow:
    """One backward pass.

    Attributes:
        norms: Frobenius norm of the gradient with respect to each block's input, first block first.
        gradients: of the parameters, by name; zero where the loss does not depend on one.
        loss: mean cross-entropy of the next token [nats/token].
    """

    norms: tuple[float, ...]
    gradients: Mapping[str, Tensor]
    loss: float


def gradient_flow(anatomy: Anatomy, ids: Tensor) -> GradientFlow:
    """||d loss / d x_l|| of every block's input x_l [1/activation], and the parameters' gradients.

    Equation (7) bounds the first by the last times the product of the sub-layers' Jacobian norms.

    Args:
        anatomy: of the model; its parameters' own `.grad` is neither read nor written.
        ids: token ids [B, T + 1]; the last T are the targets.

    Reference: Takase et al., arXiv 2312.16903, equation 7.
    """
    named = {name: parameter for name, parameter in anatomy.lm.model.named_parameters() if parameter.requires_grad}
    gradients = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    squares, loss = torch.zeros(len(anatomy.paths), dtype=torch.float64), 0.0
    for sequence in ids.split(1):  # activations and logits of one at a time
        part = _loss(anatomy, sequence, streams := []) / len(ids)
        found = torch.autograd.grad(part, [*streams, *named.values()], allow_unused=True)
        loss += float(part.detach())
        for index, each in enumerate(found[: len(streams)]):
            squares[index] += 0.0 if each is None else float(each.double().square().sum())
        for total, each in zip(gradients.values(), found[len(streams) :], strict=True):
            if each is not None:
                total += each
    return GradientFlow(norms=tuple(squares.sqrt().tolist()), gradients=gradients, loss=loss)


def _loss(anatomy: Anatomy, ids: Tensor, streams: list[Tensor]) -> Tensor:
    """Mean cross-entropy; the blocks' inputs are put into `streams`."""

    def enter(index: int, call: BlockCall) -> Tensor:
        stream = call.stream if call.stream.requires_grad else call.stream.detach().requires_grad_()
        streams.append(stream)
        return stream.clone()  # which a block may overwrite

    with torch.enable_grad(), watch_blocks(anatomy.lm.model, anatomy.paths, enter):
        logits = anatomy.lm.logits(ids[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())
