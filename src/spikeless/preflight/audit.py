"""The audit: measure a model, check what was measured, and say what would help."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from spikeless.diagnostics.anatomy import Anatomy
from spikeless.diagnostics.anatomy.language_model import LanguageModel
from spikeless.errors import UserError
from spikeless.optim.adamw import AdamW
from spikeless.preflight.batch import read_batches, wanted_tokens
from spikeless.preflight.checks import run_checks
from spikeless.preflight.findings import Finding
from spikeless.preflight.measure import Plan, is_untrained, measure
from spikeless.preflight.measurements import Measurements, ModelReading
from spikeless.preflight.result import AuditReport
from spikeless.preflight.score import score
from spikeless.preflight.suggest import QUANTITY_OF_CODE, suggestions
from spikeless.preflight.target import Target, known_context_length, load_target, target_of_run
from spikeless.preflight.undisturbed import undisturbed
from spikeless.preflight.watch import Watch
from spikeless.recipes import adapt
from spikeless.run import RunConfig
from spikeless.words import counted

__all__ = ["audit"]

THEORY_TOKENS = 128
FEWEST_TOKENS = 2
FLOATS = (torch.float32, torch.float64)


def audit(
    model: torch.nn.Module | str | RunConfig,
    batch: Tensor | None = None,
    *,
    techniques: Sequence[str] = (),
    assignments: Sequence[str] = (),
    data: str | None = None,
    sequences: int | None = None,
    tokens: int | None = None,
    lr: float | None = None,
    optimizer: AdamW | None = None,
    range_steps: int = 0,
    parts: Mapping[str, str] | None = None,
    trained: bool | None = None,
    theory_only: bool = False,
    command: str = "",
    watch: Watch = lambda *_: None,
) -> AuditReport:
    """Tell whether a model will be stable, and what to change.

    Args:
        model: any causal language model as a module, a run, or what `spikeless audit` takes: a recipe, a folder, a
            config.json, `module:factory`, a hub name.
        batch: token ids [B, T + 1]; the last T are the targets. Without them `data` says what to read.
        techniques: applied to a recipe or configuration first.
        assignments: settings of it, `path=value`.
        data: a corpus, or "random".
        sequences: B, where `batch` is not given.
        tokens: T, where `batch` is not given.
        lr: the planned learning rate, to be judged.
        optimizer: the planned optimizer; its epsilon and decay are judged.
        range_steps: steps of a learning-rate range test, each on a batch of its own unless `batch` is given.
        parts: what the anatomy cannot find: "blocks", "embedding", "head" by module path.
        trained: what is known of the weights; without it the norms' gains tell.
        theory_only: only what needs no activations, from the meta device and the declared initialisation.
        command: that reproduces it, for the record.
        watch: told of progress.

    Returns:
        Measurements, findings with evidence, and the score.

    Raises:
        UserError: no such target, not a causal language model, or data that does not fit.
    """
    if lr is not None and not 0 < lr < math.inf:
        raise UserError(f"--lr {lr} is out of range; use a number above 0")
    if optimizer is not None and not 0 < optimizer.eps < math.inf:
        raise UserError(f"optim.eps={optimizer.eps} is out of range; use a number above 0")
    if range_steps < 0 or range_steps == 1:
        raise UserError(f"--steps {range_steps} is out of range; use 2 or more, or 0 for no range test")
    if isinstance(model, torch.nn.Module):
        target = _of_module(model, trained, theory_only)
    elif isinstance(model, RunConfig):
        target = target_of_run(model.recipe, adapt(model, techniques, assignments), theory_only)
    else:
        target = load_target(
            model, techniques=techniques, assignments=assignments, trained=trained, theory_only=theory_only
        )
    optimizer = optimizer or target.optimizer
    if lr is None and target.run is not None and target.optimizer is not None:
        lr = target.run.optim.lr
    with undisturbed(target.model):
        ids, source = None, ""
        if not theory_only:
            lm = LanguageModel(target.model)
            vocab_size = _vocabulary(lm)
            batches = range_steps + 1
            if batch is None:
                if target.context_length is None:
                    target = replace(target, context_length=_longest(lm, wanted_tokens(tokens)))
                ids, source = read_batches(target, vocab_size, batches, data=data, sequences=sequences, tokens=tokens)
            else:
                ids, source = _checked(batch, vocab_size).expand(batches, -1, -1), "given"
        measured, run = measure(
            target.model,
            Plan(
                ids=None if ids is None else ids[0],
                source=source,
                lr=lr,
                optimizer=optimizer,
                range_ids=ids if range_steps else None,
                parts=parts or {},
                guess=target.state is None,
            ),
            reading=lambda anatomy: _describe(target, anatomy),
            declared=target.declared,
            run=target.run,
            decayed_roles=replace(target, optimizer=optimizer).decayed_roles,
            watch=watch,
        )
    return AuditReport(
        measured=measured,
        findings=tuple(_with_suggestions(measured, run)),
        score=score(measured),
        command=command,
    )


def _of_module(model: torch.nn.Module, trained: bool | None, theory_only: bool) -> Target:
    """A module of the user's; one in a small type is copied, so that all numbers are fp32 at least."""
    small = any(p.is_floating_point() and p.dtype not in FLOATS for p in model.parameters())
    if theory_only and not any(p.is_meta for p in model.parameters()):
        model = copy.deepcopy(model).to("meta")
    elif small:
        model = copy.deepcopy(model).float()
    return Target(
        name=type(model).__name__,
        model=model,
        architecture=type(model).__name__,
        context_length=known_context_length(model),
        state=None if trained is None else "trained" if trained else "initial",
    )


def _vocabulary(lm: LanguageModel) -> int:
    """How many ids the model gives logits of.

    Raises:
        UserError: it gives none.
    """
    return _logits(lm, FEWEST_TOKENS).shape[-1]


def _longest(lm: LanguageModel, wanted: int) -> int | None:
    """Most tokens below `wanted` that a model can be called with; None if it can be called with so many.

    Not tried on an accelerator, where an index out of range makes an end of everything.
    """
    if lm.device.type != "cpu" or _takes(lm, wanted):
        return None
    low, high = FEWEST_TOKENS, wanted
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _takes(lm, middle) else (low, middle)
    return low


def _takes(lm: LanguageModel, tokens: int) -> bool:
    try:
        _logits(lm, tokens)
    except UserError:
        return False
    return True


def _logits(lm: LanguageModel, tokens: int) -> Tensor:
    ids = torch.zeros(1, tokens, dtype=torch.long, device=lm.device)
    with torch.no_grad(), lm.evaluating():
        return lm.logits(ids)


def _checked(batch: Tensor, vocab_size: int) -> Tensor:
    if batch.dim() != 2 or batch.is_floating_point() or batch.shape[1] < 3:
        raise UserError(
            f"batch has the shape {list(batch.shape)} and type {batch.dtype}; token ids [B, T + 1] are needed"
        )
    if int(batch.max()) >= vocab_size or int(batch.min()) < 0:
        raise UserError(f"batch has the id {int(batch.max())}, but the model has {counted(vocab_size, 'row')}")
    return batch.long()


def _describe(target: Target, anatomy: Anatomy) -> ModelReading:
    untrained = is_untrained(anatomy)
    state = target.state or ("trained" if untrained is False else "initial")
    return ModelReading(
        name=target.name,
        architecture=target.architecture,
        state=state,
        parameters=sum(p.numel() for p in target.model.parameters()),
        num_layers=len(anatomy.paths),
        width=anatomy.width,
        vocab_size=anatomy.vocab_size,
        tied=anatomy.tied,
        techniques=target.run.techniques if target.run else (),
        unplaced=tuple(anatomy.unplaced),
    )


def _with_suggestions(measured: Measurements, run: RunConfig | None) -> list[Finding]:
    """Findings, those that are not well with the techniques that would help."""
    tokens = THEORY_TOKENS if measured.batch is None else measured.batch.tokens // measured.batch.sequences
    found: list[Finding] = []
    known: dict[str, Any] = {}
    for finding in run_checks(measured):
        quantity = QUANTITY_OF_CODE.get(finding.code)
        trained = measured.model.state == "trained"  # techniques change what a run starts from
        if run is None or trained or quantity is None or finding.severity == "pass":
            found.append(finding)
            continue
        if quantity not in known:
            known[quantity] = suggestions(run, quantity, tokens)
        found.append(replace(finding, suggestions=known[quantity]))
    return found
