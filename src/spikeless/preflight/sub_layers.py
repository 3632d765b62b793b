"""Spectral norms, and estimate, bound and measured Jacobian of every sub-layer, one block at a time."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from spikeless.diagnostics.anatomy import Anatomy, BlockView
from spikeless.diagnostics.anatomy.blocks import BlockCall
from spikeless.diagnostics.anatomy.fused import fused_rows
from spikeless.diagnostics.anatomy.matrices import Matrix
from spikeless.diagnostics.probes.jacobian import SAMPLED_TOKENS, JacobianNorms, jacobian
from spikeless.diagnostics.probes.jacobian_bound import jacobian_bound
from spikeless.diagnostics.probes.shortcut import token_stds
from spikeless.diagnostics.probes.spectral_norm import spectral_norm
from spikeless.preflight.measurements import LayerReading, MatrixReading, SubLayerReading
from spikeless.preflight.theory import SubLayerStrengths, ffn_norm
from spikeless.preflight.watch import Watch
from spikeless.roles import Role

__all__ = ["measure_sub_layers"]


def measure_sub_layers(
    layers: Sequence[LayerReading],
    anatomy: Anatomy,
    ids: Tensor,
    known: Sequence[Sequence[SubLayerStrengths | None]],
    watch: Watch,
) -> tuple[LayerReading, ...]:
    """The layers with what theory says of their sub-layers beside what is measured.

    Args:
        layers: as far as they are measured.
        anatomy: of the model.
        ids: one sequence [1, T].
        known: std and sizes of the sub-layers' matrices, where known.
        watch: told of progress.
    """
    found: list[LayerReading] = []
    with anatomy.lm.quiet(), torch.enable_grad():
        calls, short, one, two = (anatomy.calls(ids[:, :t]) for t in (ids.shape[1], SAMPLED_TOKENS, 1, 2))
        for layer in layers:
            watch("Jacobians", layer.index, len(layers))
            view, few, alone, pair = (_differentiable(anatomy, each, layer.index) for each in (calls, short, one, two))
            sub_layers = []
            given = layer.sub_layers
            if len(given) != len(view.segments):  # the stream was overwritten in place: the block is one map
                given = (replace(given[0], kind="unknown"),)
            for index, sub_layer in enumerate(given):
                strengths = known[layer.index][index] if layer.index < len(known) else None
                try:
                    at = few if view.parts[index].kind == "ffn" else view  # maps of single tokens need not all of them
                    sub_layers.append(_sub_layer(anatomy, at, alone, pair, index, sub_layer, strengths))
                except RuntimeError as error:  # of autograd: something was overwritten, or has no derivative
                    reason = str(error).partition("\n")[0][:120]
                    sub_layers.append(replace(sub_layer, note=f"the Jacobian cannot be computed: {reason}"))
            found.append(replace(layer, sub_layers=tuple(sub_layers)))
    return tuple(found)


def _differentiable(anatomy: Anatomy, calls: list[BlockCall], index: int) -> BlockView:
    stream = calls[index].stream.detach().requires_grad_()
    return anatomy.view(index, calls[index], stream)


def _sub_layer(
    anatomy: Anatomy,
    view: BlockView,
    alone: BlockView,
    pair: BlockView,
    index: int,
    reading: SubLayerReading,
    strengths: SubLayerStrengths | None,
) -> SubLayerReading:
    matrices = fused_rows(alone, pair, index)
    spectral = {role: spectral_norm(matrix).largest for role, matrix in matrices.items()}
    norms = jacobian(view, index)
    bound = jacobian_bound(view, index, norms=anatomy.norms, spectral=spectral, heads=norms.heads, tokens=norms.tokens)
    return replace(
        reading,
        matrices=tuple(_matrix(role, matrices[role], spectral[role]) for role in Role if role in matrices),
        estimate=_estimate(view, index, strengths, norms),
        bound=bound.value,
        measured=norms.sub_layer,
        heads=norms.heads,
        note=bound.note if norms.converged else f"{bound.note}; Lanczos did not converge".lstrip("; "),
    )


def _matrix(role: Role, matrix: Matrix, spectral: float) -> MatrixReading:
    dense = matrix.dense()
    d_out, d_in = matrix.shape
    std = float(dense.std(correction=0))
    return MatrixReading(
        name=matrix.name,
        role=role.value,
        shape=(d_out, d_in),
        std=std,
        spectral_norm=spectral,
        gaussian=std * (math.sqrt(d_out) + math.sqrt(d_in)),
    )


def _estimate(view: BlockView, index: int, strengths: SubLayerStrengths | None, norms: JacobianNorms) -> float | None:
    """Formula (15) or (20) with Gaussian spectral norms, the measured ||J^Z||, and the median shortcut."""
    if strengths is None:
        return None
    segment = view.segments[index]
    entered = float(token_stds(view.tensor(segment.start)).median())
    total = 0.0
    if "attention" in strengths.parts:
        if norms.heads is None:
            return None
        total += strengths.matrices["attention_out"].norm * norms.heads * strengths.norm_gain
    if "ffn" in strengths.parts:
        total += ffn_norm(strengths)
    total *= strengths.scale
    if segment.norms:
        total = total / entered if entered > 0 else math.inf
    if strengths.output_norm is not None and segment.post_norms:
        after = float(token_stds(view.tensor(segment.post_norms[0].input)).median())
        total = total * strengths.output_norm / after if after > 0 else math.inf
    return 1.0 + total
