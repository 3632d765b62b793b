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

from spikeless.diagnostics import Snapshot
from spikeless.diagnostics.anatomy import Anatomy, BlockView, dissect
from spikeless.diagnostics.anatomy.language_model import LanguageModel
from spikeless.diagnostics.probes.attention_statistics import attention_statistics
from spikeless.diagnostics.probes.gradient_flow import gradient_flow
from spikeless.diagnostics.probes.growth_over_depth import growth_over_depth
from spikeless.diagnostics.probes.output_logits import output_logits
from spikeless.diagnostics.probes.shortcut import shortcut, token_stds
from spikeless.diagnostics.tev import tev
from spikeless.errors import UserError
from spikeless.optim.adamw import AdamW
from spikeless.preflight.first_update import measure_learning_rate
from spikeless.preflight.measurements import (
    AttentionReading,
    BatchReading,
    DeclaredInit,
    GrowthFit,
    LayerReading,
    LogitsReading,
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
from spikeless.preflight.sub_layers import measure_sub_layers
from spikeless.preflight.tensors import read_tensors
from spikeless.preflight.theory import Strengths, SubLayerStrengths, theory
from spikeless.preflight.watch import Watch
from spikeless.run import RunConfig
from spikeless.stats import row_moments

__all__ = ["Plan", "is_untrained", "measure"]

JACOBIAN_TOKENS = 128
EQUAL, FITTED = 1e-5, 0.05  # of a gain; the second where it had to be fitted to a functional norm
LEARNT = 1.0  # below ln V, from which a loss is no initial one [nats/token]
BINS = 80
ALIKE = 0.9  # share of norms whose gains are all one number, from which a model counts as untrained


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure, and how.

    Attributes:
        ids: token ids [B, T + 1]; None measures nothing that needs activations (theory only).
        source: what the ids are.
        lr: the planned learning rate, None if not said.
        optimizer: the planned one, None for AdamW's defaults.
        range_ids: batches of a learning-rate range test of N steps [N + 1, B, T + 1]; None for none.
        parts: what the user tells of the anatomy.
        guess: nothing is known of whether the weights are trained.
    """

    ids: Tensor | None = None
    source: str = ""
    lr: float | None = None
    optimizer: AdamW | None = None
    range_ids: Tensor | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    guess: bool = False


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
        untouched = run is not None and described.state == "initial"
        known = () if untouched and plan.ids is None else _block_strengths(anatomy, std_of)
        if run is not None and untouched:
            whole, stand_in = strengths_of(run, length), run
        else:
            whole = model_strengths(anatomy, known, std_of, length)
            stand_in = None if whole is None else stand_in_for(anatomy, whole)
        measured = replace(measured, theory=None if whole is None else _theory(whole))
    if plan.ids is None:
        return measured, stand_in
    ids = plan.ids.to(lm.device).clone()
    with timed("activations"):
        measured = _activations(measured, anatomy, ids, plan.source, watch)
        head = measured.logits
        if plan.guess and head is not None and head.loss < head.ln_vocab - LEARNT:
            measured = replace(measured, model=replace(measured.model, state="trained"))
    with timed("embedding"):
        measured = replace(measured, tev=_tev(anatomy))
    if not finite or measured.logits is None or not math.isfinite(measured.logits.loss):
        return measured, stand_in
    with timed("jacobians"):
        tokens = ids[:1, : min(JACOBIAN_TOKENS, ids.shape[1] - 1)]
        measured = replace(measured, layers=measure_sub_layers(measured.layers, anatomy, tokens, known, watch))
    with timed("gradients"), lm.evaluating():
        measured, gradients = _gradients(measured, anatomy, ids)
    with timed("learning rate"), lm.evaluating():
        watch("learning rate", 0, 1)
        optimizer = plan.optimizer or AdamW()
        found = measure_learning_rate(
            anatomy, ids, gradients, optimizer=optimizer, lr=plan.lr, range_ids=plan.range_ids
        )
    return replace(measured, learning_rate=found), stand_in


def is_untrained(anatomy: Anatomy) -> bool | None:
    """Whether the gains of (nearly) every norm are one number, as no optimizer leaves them; None without any norm."""
    if not anatomy.norms:
        return None
    alike = [
        bool(each.gain.max() - each.gain.min() <= (EQUAL if each.parameters else FITTED) * each.gain.abs().max())
        for each in anatomy.norms.values()
    ]
    return sum(alike) >= ALIKE * len(alike)


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
    with anatomy.lm.quiet(), torch.no_grad():
        anatomy.run(anatomy.lm.probe_ids(), lambda view: found.append(block_strengths(anatomy, view, std_of)))
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


def _histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts and edges; values that are all but equal, as behind a norm, still get bins that can be told apart."""
    low, high = float(values.min()), float(values.max())
    margin = max(0.0, 0.005 * (high + low) - (high - low)) / 2
    return np.histogram(values, BINS, range=(low - margin, high + margin))


def _tev(anatomy: Anatomy) -> TevReading | None:
    entry = anatomy.entry
    if entry is None:
        return None
    positions = entry.positions
    if positions is not None and positions.shape[-1] != entry.weight.shape[-1]:
        positions = None  # a narrow table, projected to the stream
    found = tev(
        Snapshot(
            embedding=entry.weight.detach(),
            transform=1.0 if entry.function is None else entry.function,
            positions=positions,
        )
    )
    read = {key: float(value) for key, value in found.items()}
    known = entry.function is not None
    stds = row_moments(entry.weight.detach(), entry.function)[0].sqrt().cpu().numpy()
    finite = stds[np.isfinite(stds)]
    counts, edges = _histogram(finite) if len(finite) else (np.zeros(0), np.zeros(0))
    return TevReading(
        name=entry.name,
        mean=read["tev/mean"],
        std=read["tev/std"],
        effective_mean=read["tev/effective_mean"] if known else None,
        effective_std=read["tev/effective_std"] if known else None,
        with_positions_mean=read.get("tev/effective_with_positions_mean") if known else None,
        entry=entry.words,
        padded_rows=int((row_moments(entry.weight.detach())[0] == 0).sum()),
        histogram=tuple(float(each) / max(1, len(stds)) for each in counts),
        edges=tuple(float(each) for each in edges),
    )


def _gradients(measured: Measurements, anatomy: Anatomy, ids: Tensor) -> tuple[Measurements, Mapping[str, Tensor]]:
    try:
        flow = gradient_flow(anatomy, ids)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"the loss of this model cannot be differentiated: {reason}") from error
    growth = growth_over_depth(flow.norms)
    rms = {name: float(each.float().square().mean().sqrt()) for name, each in flow.gradients.items() if each.numel()}
    layers = tuple(replace(layer, gradient_norm=norm) for layer, norm in zip(measured.layers, flow.norms, strict=True))
    tensors = tuple(replace(each, gradient_rms=rms.get(each.name)) for each in measured.tensors)
    fit = None if growth is None else GrowthFit(**asdict(growth))
    return replace(measured, layers=layers, tensors=tensors, gradient_growth=fit), flow.gradients
