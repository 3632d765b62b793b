"""Run the probes over a model, in an order that keeps memory small, and put down what they say."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from spikeless.diagnostics import Snapshot
from spikeless.diagnostics.anatomy import Anatomy, BlockView, dissect
from spikeless.diagnostics.anatomy.blocks import BlockCall
from spikeless.diagnostics.anatomy.language_model import LanguageModel
from spikeless.diagnostics.probes.adam_first_update import adam_first_update
from spikeless.diagnostics.probes.attention_statistics import attention_statistics
from spikeless.diagnostics.probes.critical_learning_rate import critical_learning_rate
from spikeless.diagnostics.probes.fused_rows import fused_rows
from spikeless.diagnostics.probes.gradient_flow import gradient_flow
from spikeless.diagnostics.probes.growth_over_depth import growth_over_depth
from spikeless.diagnostics.probes.jacobian import JacobianNorms, jacobian
from spikeless.diagnostics.probes.jacobian_bound import jacobian_bound
from spikeless.diagnostics.probes.learning_rate_range import learning_rate_range
from spikeless.diagnostics.probes.output_logits import output_logits
from spikeless.diagnostics.probes.shortcut import shortcut, token_stds
from spikeless.diagnostics.probes.spectral_norm import spectral_norm
from spikeless.diagnostics.tev import tev
from spikeless.optim.adamw import AdamW
from spikeless.preflight.measurements import (
    AttentionReading,
    BatchReading,
    DeclaredInit,
    GrowthFit,
    LayerReading,
    LearningRateReading,
    LogitsReading,
    MatrixReading,
    Measurements,
    ModelReading,
    Spread,
    SubLayerReading,
    TensorReading,
    TevReading,
    Theory,
)
from spikeless.preflight.model_strengths import StdOf, block_strengths, model_strengths, stand_in_for
from spikeless.preflight.strengths import strengths_of
from spikeless.preflight.tensors import read_tensors
from spikeless.preflight.theory import Strengths, SubLayerStrengths, ffn_norm, theory
from spikeless.roles import Role
from spikeless.run import RunConfig

__all__ = ["Plan", "Watch", "measure"]

JACOBIAN_TOKENS = 128
BINS = 80
ALIKE = 0.9  # share of norms whose gains are all one number, from which a model counts as untrained
RANGE_LRS = (1e-6, 1.0)

Watch = Callable[[str, int, int], None]
"""Told of progress: what is being measured, how much is done, how much there is."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure, and how.

    Attributes:
        ids: token ids [B, T + 1]; None measures nothing that needs activations (theory only).
        source: what the ids are.
        lr: the planned learning rate, None if not said.
        optimizer: the planned one, None for AdamW's defaults.
        range_steps: steps of a learning-rate range test; 0 for none.
        parts: what the user tells of the anatomy.
    """

    ids: Tensor | None = None
    source: str = ""
    lr: float | None = None
    optimizer: AdamW | None = None
    range_steps: int = 0
    parts: Mapping[str, str] = field(default_factory=dict)


def measure(
    model: torch.nn.Module,
    plan: Plan,
    *,
    reading: Callable[[Anatomy], ModelReading],
    declared: Mapping[str, DeclaredInit] | None = None,
    run: RunConfig | None = None,
    decayed_roles: tuple[str, ...] | None = None,
    watch: Watch = lambda *_: None,
) -> tuple[Measurements, RunConfig | None]:
    """Everything that the checks look at, and a run on which techniques can be tried. The model is left as it was.

    Args:
        model: with weights, or on the meta device for theory only.
        plan: what to measure.
        reading: describes the model, once its anatomy is known.
        declared: how each parameter was written, where that was watched.
        run: that the model was built from; without one a run of the same sizes and std stands for it, where it can.
        decayed_roles: roles that weight decay acts on.
        watch: told of progress.

    Raises:
        UserError: not a causal language model.
    """
    lm, seconds = LanguageModel(model), dict[str, float]()
    timed = _timer(seconds)
    with timed("anatomy"):
        anatomy = dissect(lm, plan.parts)
        if plan.ids is not None:
            lm.check_causal(anatomy.vocab_size)
    with timed("tensors"):
        tensors = _tensors(anatomy, declared or {})
    finite = all(each.finite == 1.0 for each in tensors)
    described = reading(anatomy)
    std_of = _std_of(tensors)
    measured = Measurements(model=described, tensors=tensors, decayed_roles=decayed_roles, seconds=seconds)
    length = JACOBIAN_TOKENS if plan.ids is None else plan.ids.shape[1] - 1
    with timed("theory"):
        known = _block_strengths(anatomy, std_of)
        untouched = run is not None and described.state == "initial"
        whole = strengths_of(run, length) if untouched else model_strengths(anatomy, known, std_of, length)
        measured = replace(measured, theory=None if whole is None else _theory(whole))
        stand_in = run if untouched else None if whole is None else stand_in_for(anatomy, whole)
    if plan.ids is None:
        return measured, stand_in
    ids = plan.ids.to(lm.device)
    with timed("activations"):
        measured = _activations(measured, anatomy, ids, plan.source, watch)
    with timed("embedding"):
        measured = replace(measured, tev=_tev(anatomy))
    if not finite or measured.logits is None or not math.isfinite(measured.logits.loss):
        return measured, stand_in
    with timed("jacobians"):
        measured = _jacobians(measured, anatomy, ids, known, watch)
    with timed("gradients"), lm.evaluating():
        measured, gradients = _gradients(measured, anatomy, ids)
    with timed("learning rate"), lm.evaluating():
        found = _learning_rate(anatomy, ids, plan, gradients, watch)
    return replace(measured, learning_rate=found), stand_in


def is_untrained(anatomy: Anatomy) -> bool | None:
    """Whether the gains of (nearly) every norm are one number, as no optimizer leaves them; None without any norm."""
    if not anatomy.gains:
        return None
    return sum(low == high for low, high in anatomy.gains.values()) >= ALIKE * len(anatomy.gains)


def _timer(seconds: dict[str, float]) -> Callable[[str], Any]:
    @contextmanager
    def timed(what: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds[what] = round(time.perf_counter() - started, 3)

    return timed


def _tensors(anatomy: Anatomy, declared: Mapping[str, DeclaredInit]) -> tuple[TensorReading, ...]:
    return read_tensors(
        dict(anatomy.lm.model.named_parameters()),
        roles={name: role.value for name, role in anatomy.roles.items()},
        layers=anatomy.layers,
        transposed=anatomy.transposed,
        gains=anatomy.gains,
        declared=declared,
    )


def _std_of(tensors: tuple[TensorReading, ...]) -> StdOf:
    stds = {each.name: each.std for each in tensors}
    return lambda name: stds.get(name)


def _theory(strengths: Strengths) -> Theory | None:
    try:
        return theory(strengths)
    except (KeyError, ValueError, ZeroDivisionError):
        return None


def _block_strengths(anatomy: Anatomy, std_of: StdOf) -> tuple[tuple[SubLayerStrengths | None, ...], ...]:
    found: list[tuple[SubLayerStrengths | None, ...]] = []
    ids = torch.arange(8, device=anatomy.lm.device)[None] % max(1, anatomy.vocab_size)
    with anatomy.lm.quiet(), torch.no_grad():
        anatomy.run(ids, lambda view: found.append(block_strengths(anatomy, view, std_of)))
    return tuple(found)


def _activations(measured: Measurements, anatomy: Anatomy, ids: Tensor, source: str, watch: Watch) -> Measurements:
    layers: list[LayerReading] = []

    def visit(view: BlockView) -> None:
        watch("activations", view.index, len(anatomy.paths))
        found = [attention_statistics(view, index) for index in range(len(view.segments))]
        attention = next((each for each in found if each is not None), None)
        sub_layers = tuple(
            SubLayerReading(kind=part.kind, shortcut=Spread(**asdict(shortcut(view, index))), matrices=())  # type: ignore[arg-type]
            for index, part in enumerate(view.parts)
        )
        layers.append(
            LayerReading(
                index=view.index,
                name=view.call.path,
                form=view.form,
                sub_layers=sub_layers,
                residual_std=float(token_stds(view.entered).double().square().mean().sqrt()),
                attention=None if attention is None else AttentionReading(**asdict(attention)),
            )
        )

    with anatomy.lm.quiet(), torch.no_grad():
        logits = anatomy.run(ids[:, :-1], visit)
        head = output_logits(logits, ids[:, 1:])
    growth = growth_over_depth([each.residual_std**2 for each in layers if each.residual_std is not None])
    return replace(
        measured,
        batch=BatchReading(
            source=source,
            sequences=len(ids),
            tokens=ids[:, 1:].numel(),
            jacobian_tokens=min(JACOBIAN_TOKENS, ids.shape[1] - 1),
        ),
        layers=tuple(layers),
        logits=LogitsReading(**asdict(head)),
        residual_growth=None if growth is None else GrowthFit(**asdict(growth)),
    )


def _tev(anatomy: Anatomy) -> TevReading | None:
    entry = anatomy.entry
    if entry is None:
        return None
    found = tev(
        Snapshot(
            embedding=entry.weight.detach(),
            transform=1.0 if entry.function is None else entry.function,
            positions=entry.positions,
        )
    )
    read = {key: float(value) for key, value in found.items()}
    rows = entry.weight.detach().float()
    stds = rows.std(1, correction=0).cpu().numpy()
    finite = stds[np.isfinite(stds)]
    counts, edges = np.histogram(finite, BINS) if len(finite) else (np.zeros(0), np.zeros(0))
    known = entry.function is not None
    return TevReading(
        name=entry.name,
        mean=read["tev/mean"],
        std=read["tev/std"],
        effective_mean=read["tev/effective_mean"] if known else None,
        effective_std=read["tev/effective_std"] if known else None,
        with_positions_mean=read.get("tev/effective_with_positions_mean") if known else None,
        entry=entry.words,
        padded_rows=int((stds == 0).sum()),
        histogram=tuple(float(each) / max(1, len(stds)) for each in counts),
        edges=tuple(float(each) for each in edges),
    )


def _jacobians(
    measured: Measurements,
    anatomy: Anatomy,
    ids: Tensor,
    known: tuple[tuple[SubLayerStrengths | None, ...], ...],
    watch: Watch,
) -> Measurements:
    """Spectral norms, and estimate, bound and measured Jacobian of every sub-layer, one block at a time."""
    length = measured.batch.jacobian_tokens if measured.batch else JACOBIAN_TOKENS
    layers: list[LayerReading] = []
    with anatomy.lm.quiet(), torch.enable_grad():
        calls, one, two = (anatomy.calls(ids[:1, :tokens]) for tokens in (length, 1, 2))
        for layer in measured.layers:
            watch("Jacobians", layer.index, len(measured.layers))
            view, alone, pair = (_differentiable(anatomy, each, layer.index) for each in (calls, one, two))
            sub_layers = []
            for index, sub_layer in enumerate(layer.sub_layers):
                strengths = known[layer.index][index] if layer.index < len(known) else None
                sub_layers.append(_sub_layer(anatomy, view, alone, pair, index, sub_layer, strengths))
            layers.append(replace(layer, sub_layers=tuple(sub_layers)))
    return replace(measured, layers=tuple(layers))


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
    bound = jacobian_bound(
        view, index, norms=anatomy.norms, spectral=spectral, heads=norms.heads, tokens=norms.tokens
    )
    return replace(
        reading,
        matrices=tuple(_matrix(role, matrices[role], spectral[role]) for role in Role if role in matrices),
        estimate=_estimate(view, index, strengths, norms),
        bound=bound.value,
        measured=norms.sub_layer,
        heads=norms.heads,
        note=bound.note if norms.converged else f"{bound.note}; Lanczos did not converge".lstrip("; "),
    )


def _matrix(role: Role, matrix: Any, spectral: float) -> MatrixReading:
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


def _estimate(
    view: BlockView, index: int, strengths: SubLayerStrengths | None, norms: JacobianNorms
) -> float | None:
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


def _gradients(measured: Measurements, anatomy: Anatomy, ids: Tensor) -> tuple[Measurements, Mapping[str, Tensor]]:
    flow = gradient_flow(anatomy, ids)
    growth = growth_over_depth(flow.norms)
    rms = {name: float(each.float().square().mean().sqrt()) for name, each in flow.gradients.items() if each.numel()}
    layers = tuple(
        replace(layer, gradient_norm=norm) for layer, norm in zip(measured.layers, flow.norms, strict=True)
    )
    tensors = tuple(replace(each, gradient_rms=rms.get(each.name)) for each in measured.tensors)
    fit = None if growth is None else GrowthFit(**asdict(growth))
    return replace(measured, layers=layers, tensors=tensors, gradient_growth=fit), flow.gradients


def _learning_rate(
    anatomy: Anatomy, ids: Tensor, plan: Plan, gradients: Mapping[str, Tensor], watch: Watch
) -> LearningRateReading | None:
    optimizer = plan.optimizer or AdamW()
    model = anatomy.lm.model
    parameters = {name: each for name, each in model.named_parameters() if name in gradients}
    if not parameters:
        return None
    roles = anatomy.roles

    def decayed(name: str) -> bool:
        role = roles.get(name)
        return role is not None and role.is_matrix and role.value not in optimizer.undecayed

    @torch.no_grad()
    def loss() -> Tensor:
        return _loss(anatomy, ids)

    watch("learning rate", 0, 1)
    update = adam_first_update(
        gradients, parameters, eps=optimizer.eps, weight_decay=optimizer.weight_decay, decayed=decayed
    )
    found = critical_learning_rate(loss, parameters, update, gradients=gradients)
    reading = LearningRateReading(
        optimizer="AdamW",
        eps=optimizer.eps,
        lr=plan.lr,
        critical=found.critical,
        sharpness=found.sharpness,
        descent=found.descent,
    )
    if not plan.range_steps:
        return reading
    del update
    low, high = RANGE_LRS
    swept = learning_rate_range(
        lambda step: _loss(anatomy, ids),
        parameters,
        lambda given: torch.optim.AdamW(
            given, lr=low, betas=(optimizer.beta1, optimizer.beta2), eps=optimizer.eps, weight_decay=0.0
        ),
        steps=plan.range_steps,
        low=low,
        high=high,
        max_norm=1.0,
    )
    return replace(
        reading, range_lrs=tuple(swept.lrs), range_losses=tuple(swept.losses), range_limit=swept.limit
    )


def _loss(anatomy: Anatomy, ids: Tensor) -> Tensor:
    logits = anatomy.lm.logits(ids[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())
