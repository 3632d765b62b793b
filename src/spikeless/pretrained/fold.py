"""From a model with techniques to the same function made of plain parts.

A part says itself how it folds: an embedding by its `transform`, a projection by `merged()`.
"""

from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from spikeless.config import replace_at
from spikeless.errors import UserError
from spikeless.nn.embedding import TokenEmbedding
from spikeless.nn.projection import Dense
from spikeless.nn.transformer import ModelConfig, Transformer

__all__ = ["fold"]


@runtime_checkable
class Mergeable(Protocol):
    """A linear map that can be written as one matrix."""

    def merged(self) -> Tensor:
        """The matrix [d_out, d_in]."""
        ...


@torch.no_grad()
def fold(model: Transformer) -> Transformer:
    """The plain model that computes what a model with techniques computes; what is plain already is shared.

    The input table becomes what its module makes of it, in the type in which it computes. Where that changes a tied
    table, the head keeps the raw one and is untied. Factors are merged.

    Raises:
        UserError: a part has parameters that a plain model lacks, and does not say how it folds.
    """
    state = dict(model.state_dict())
    merged = {name: module.merged() for name, module in model.named_modules() if isinstance(module, Mergeable)}
    for name, matrix in merged.items():
        state = {key: value for key, value in state.items() if not _is_weight_below(key, name)}
        state[f"{name}.weight"] = matrix
    raw = model.embedding.weight
    table = model.embedding.transform(raw)
    state = {key: value for key, value in state.items() if not key.startswith("embedding.")}
    state["embedding.weight"] = table
    tied = model.config.tied and torch.equal(table, raw)
    if not tied:
        state["head.weight"] = model.output_weight
    return _assemble(_plain(model.config, bool(merged), tied), state, model.training)


def _is_weight_below(key: str, module: str) -> bool:
    return key.startswith(f"{module}.") and key != f"{module}.bias"


def _plain(config: ModelConfig, merged: bool, tied: bool) -> ModelConfig:
    config = replace(config, embedding=TokenEmbedding(), tied=tied)
    return replace_at(config, {"attention.projection": Dense()}) if merged else config


def _assemble(config: ModelConfig, state: dict[str, Tensor], training: bool) -> Transformer:
    with torch.device("meta"):
        plain = Transformer(config)
    extra = sorted(state.keys() - plain.state_dict().keys())
    if extra:
        raise UserError(
            f"the parameter {extra[0]} cannot be folded into a plain model; the module that holds it would have to say "
            "how, with `merged()` (a projection) or `transform` (the embedding)"
        )
    plain.load_state_dict({key: value.detach() for key, value in state.items()}, assign=True)
    return plain.train(training)
