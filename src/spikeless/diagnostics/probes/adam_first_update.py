"""The direction of AdamW's first step."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from spikeless.errors import UserError
from spikeless.stats import global_norm

__all__ = ["adam_first_update"]

CLIP_EPS = 1e-6  # torch.nn.utils.clip_grad_norm_


def adam_first_update(
    gradients: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    *,
    eps: float,
    weight_decay: float = 0.0,
    decayed: Callable[[str], bool] = lambda _: True,
    max_norm: float | None = None,
) -> dict[str, Tensor]:
    """Delta = g / (|g| + eps) + weight_decay theta, the first step of AdamW per unit of learning rate.

    After one step the bias-corrected moments are g and g^2, whatever the betas. So each entry is close to the
    sign of its gradient unless |g| is not well above eps; clipping matters through eps alone. Costs one copy of
    the parameters that have a gradient; those without one do not move and do not decay, as in torch.

    Args:
        gradients: by name.
        parameters: by name, at least those with a gradient.
        eps: Adam's.
        weight_decay: decoupled, per unit of learning rate.
        decayed: whether a parameter decays, from its name.
        max_norm: the global norm to which gradients are clipped first; None for no clipping.

    Raises:
        UserError: a gradient belongs to no parameter.

    Reference: Kingma & Ba, arXiv 1412.6980; Loshchilov & Hutter, arXiv 1711.05101; tested against torch.optim.AdamW.
    """
    unknown = [name for name in gradients if name not in parameters]
    if unknown:
        raise UserError(f"there is a gradient of {unknown[0]!r}, which is no parameter")
    with torch.no_grad():
        scale = None
        if max_norm is not None and gradients:
            scale = (max_norm / (global_norm(gradients.values()) + CLIP_EPS)).clamp(max=1.0)
        update = {}
        for name, gradient in gradients.items():
            seen = gradient if scale is None else gradient * scale.to(gradient)
            step = seen / (seen.abs() + eps)
            update[name] = step.add_(parameters[name], alpha=weight_decay) if weight_decay and decayed(name) else step
        return update
