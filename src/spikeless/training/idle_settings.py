"""Settings of a run that cannot take effect, which a user may not know."""

import math
import warnings

from spikeless.errors import SpikelessWarning
from spikeless.optim.schedules import largest_factor
from spikeless.optim.schedules.constant import Constant
from spikeless.run import CheckpointConfig, DataConfig, MetricsConfig, RunConfig
from spikeless.words import counted

__all__ = ["idle_settings", "say_idle_settings"]


def idle_settings(run: RunConfig) -> list[str]:
    """One line for each setting that has no effect in this run, with what would have one."""
    return [line for line in (_peak(run), _floor(run), _best(run), _diagnostics(run), _split(run)) if line]


def say_idle_settings(run: RunConfig) -> None:
    """Warn of each.

    Warns:
        SpikelessWarning: one line, such as that a peak learning rate is never reached.
    """
    for line in idle_settings(run):
        warnings.warn(line, SpikelessWarning, stacklevel=3)


def _peak(run: RunConfig) -> str | None:
    """A run that ends while its learning rate still rises; a schedule that peaks lower is meant so."""
    reached = largest_factor(run.schedule, run.steps)
    if reached >= 1 or reached > run.schedule.factor(run.steps - 1, run.steps):
        return None
    warmup = getattr(run.schedule, "warmup_steps", 0)
    cause = f" (schedule.warmup_steps={warmup})" if warmup > run.steps else ""
    return (
        f"optim.lr={run.optim.lr:g} is never reached: the learning rate still rises{cause} when the run of "
        f"{counted(run.steps, 'step')} ends, at {reached * run.optim.lr:.3g}"
    )


def _floor(run: RunConfig) -> str | None:
    if isinstance(run.schedule, Constant) and run.schedule.final != Constant().final:
        return f"schedule.final={run.schedule.final:g} has no effect: the schedule is constant"
    return None


def _best(run: RunConfig) -> str | None:
    """The best checkpoint is looked for among those of a step with a validation loss; the last one has it always."""
    kept, saved, evaluated = run.checkpoint.keep_best, run.checkpoint.every, run.evaluation.every
    if kept == CheckpointConfig().keep_best or not kept:
        return None
    if saved and evaluated and math.lcm(saved, evaluated) < run.steps:
        return None
    return (
        f"checkpoint.keep_best={kept} has no effect: no step before the last has both a checkpoint (checkpoint.every="
        f"{saved}) and a validation loss (evaluation.every={evaluated})"
    )


def _diagnostics(run: RunConfig) -> str | None:
    if run.metrics.every or run.metrics.diagnostics == MetricsConfig().diagnostics or not run.metrics.diagnostics:
        return None
    return f"metrics.diagnostics={','.join(run.metrics.diagnostics)} has no effect: metrics.every=0 turns them off"


def _split(run: RunConfig) -> str | None:
    if run.data.validation_fraction == DataConfig().validation_fraction or not run.data.spec.startswith("shards:"):
        return None
    fraction = f"data.validation_fraction={run.data.validation_fraction:g}"
    return f"{fraction} has no effect: {run.data.spec} was split when it was prepared"
