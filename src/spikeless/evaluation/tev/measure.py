"""TEV of one checkpoint: its table's rows, read once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from spikeless.errors import UserError
from spikeless.evaluation.tev.entry import Entry
from spikeless.evaluation.tev.layout import SCALES, count_parameters, find_embedding
from spikeless.evaluation.tev.moments import row_statistics
from spikeless.evaluation.tev.sources import Source
from spikeless.stats import mean_and_std
from spikeless.weights import TensorInfo, Weights

__all__ = ["EmbeddingVariability", "measure"]

PART_BYTES = 1 << 26  # that one thread takes at a time


@dataclass(frozen=True, kw_only=True)
class EmbeddingVariability:
    """What `spikeless tev` says of one checkpoint. TEV is dimensionless.

    Attributes:
        label: the path or name as it was given.
        step: the training step, for a checkpoint of ours.
        tensor: the embedding's name.
        dtype: how it is stored, as safetensors calls it.
        rows: V.
        width: D.
        parameters: numbers in all tensors, but for known buffers.
        tied: whether the head is the same table; None if that cannot be told.
        entry: what a row goes through on its way into the residual stream, in words.
        mean: raw μ over the finite rows; None if there are none.
        std: raw σ.
        effective_mean: μ after `entry`, without positions; None if `entry` is unknown.
        effective_std: σ after `entry`.
        vocabulary: ids that the tokenizer or the configuration knows, if either is there.
        padded_rows: rows beyond them.
        unpadded_mean: raw μ without the padded rows, where there are any.
        unpadded_std: raw σ without them.
        constant_rows: rows whose entries are all equal, zero rows among them.
        zero_rows: rows of zeros.
        non_finite_rows: rows with NaN or infinity; they are in none of the means.
        notes: what else a reader should know.
        row_stds: TEV of every row [V], raw.
    """

    label: str
    step: int | None
    tensor: str
    dtype: str
    rows: int
    width: int
    parameters: int
    tied: bool | None
    entry: str
    mean: float | None
    std: float | None
    effective_mean: float | None
    effective_std: float | None
    vocabulary: int | None
    padded_rows: int
    unpadded_mean: float | None
    unpadded_std: float | None
    constant_rows: int
    zero_rows: int
    non_finite_rows: int
    notes: tuple[str, ...]
    row_stds: Tensor = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Everything but the rows."""
        return {key: value for key, value in vars(self).items() if key != "row_stds"} | {"notes": list(self.notes)}


def measure(source: Source, tensor: str | None = None) -> EmbeddingVariability:
    """TEV of a checkpoint.

    TEV_i is the population std of row i of the input embedding; μ and σ are mean and population std over all rows.
    Only headers, small files beside the weights, and the table are read.

    Args:
        source: the checkpoint.
        tensor: the table's name, where it is not to be found by itself.

    Raises:
        UserError: there is no embedding, or it cannot be read.
    """
    weights = source.weights
    table = find_embedding(weights, source.config, tensor, tied=source.ties())
    entry, tied = source.entry(table), source.tied(table)
    scale, notes = _scale(weights, table)
    if source.ties() and tied is False:
        notes = (*notes, "config.json ties head and table, but the two are different")
    statistics = row_statistics(
        lambda first, last: weights.rows(table.name, first=first, last=last),
        table.shape[0],
        max(1, PART_BYTES * table.shape[0] // (table.end - table.begin)),
        scale,
        _function(entry),
        source.label,
    )
    effective = statistics.effective
    if effective is None and entry.known:
        effective = statistics.raw * abs(entry.multiplier)
    finite = statistics.raw.isfinite()
    vocabulary = source.vocabulary()
    padded = max(0, len(finite) - vocabulary) if vocabulary else 0
    known = finite & (torch.arange(len(finite)) < len(finite) - padded)
    mean, std = _moments(statistics.raw[finite])
    effective_mean, effective_std = (None, None) if effective is None else _moments(effective[effective.isfinite()])
    unpadded_mean, unpadded_std = _moments(statistics.raw[known]) if padded else (None, None)
    return EmbeddingVariability(
        label=source.label,
        step=source.step,
        tensor=table.name,
        dtype=table.dtype,
        rows=table.shape[0],
        width=table.shape[1],
        parameters=count_parameters(weights),
        tied=tied,
        entry=entry.description,
        mean=mean,
        std=std,
        effective_mean=effective_mean,
        effective_std=effective_std,
        vocabulary=vocabulary,
        padded_rows=padded,
        unpadded_mean=unpadded_mean,
        unpadded_std=unpadded_std,
        constant_rows=statistics.constant,
        zero_rows=statistics.zero,
        non_finite_rows=int((~finite).sum()),
        notes=notes,
        row_stds=statistics.raw,
    )


def _function(entry: Entry) -> Callable[[Tensor], Tensor] | None:
    if entry.function is None:
        return None
    function, multiplier = entry.function, entry.multiplier
    return function if multiplier == 1.0 else lambda rows: function(rows * multiplier)


def _moments(values: Tensor) -> tuple[float | None, float | None]:
    if not len(values):
        return None, None
    mean, std = mean_and_std(values)
    return float(mean), float(std)


def _scale(weights: Weights, table: TensorInfo) -> tuple[Tensor | None, tuple[str, ...]]:
    """What fp8 numbers are to be multiplied by, [] or [V, 1]."""
    if not table.dtype.startswith("F8"):
        return None, ()
    place = table.name.removesuffix("weight")
    found = [name for each in SCALES if (name := f"{place}{each}") in weights.tensors]
    if not found:
        return None, (f"stored as {table.dtype} without a scale: the numbers are as stored",)
    scale = weights.read(found[0]).float()
    if scale.numel() == 1:
        return scale.flatten()[0], (f"scaled by {found[0]}",)
    if scale.numel() == scale.shape[0] == table.shape[0]:
        return scale.reshape(-1, 1), (f"scaled by {found[0]}, row by row",)
    raise UserError(
        f"{table.file}: {found[0]} of shape {list(scale.shape)} scales blocks of {table.name}, which is not supported; "
        "give a checkpoint with one scale, one for each row, or in bf16"
    )
