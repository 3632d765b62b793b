"""The head's output: scale of the logits, and the loss against a uniform guess."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["output_logits"]

CHUNK_TOKENS = 128


@dataclass(frozen=True, kw_only=True)
class OutputLogits:
    """Of one batch.

    Attributes:
        std: of the logits over the vocabulary, mean over tokens.
        max_abs: largest |logit|.
        log_sum_exp: mean over tokens [nats].
        loss: mean cross-entropy of the next token [nats/token].
        ln_vocab: ln V [nats/token].
    """

    std: float
    max_abs: float
    log_sum_exp: float
    loss: float
    ln_vocab: float


def output_logits(logits: Tensor, targets: Tensor) -> OutputLogits:
    """Scale of logits [B, T, V] and their loss for targets [B, T] [nats/token], in fp32 a chunk at a time.

    Reference: Wortsman et al. 2023 (log-sum-exp as a leading indicator).
    """
    rows, wanted = logits.detach().flatten(0, 1), targets.flatten()
    std = sums = loss = 0.0
    largest = torch.zeros((), device=rows.device)
    for some, their in zip(rows.split(CHUNK_TOKENS), wanted.split(CHUNK_TOKENS), strict=True):
        some = some.float() if some.dtype.itemsize < 4 else some
        log_sum_exp = some.logsumexp(1)
        std += float(some.std(1, correction=0).sum())
        sums += float(log_sum_exp.sum())
        loss += float((log_sum_exp - some.gather(1, their[:, None])[:, 0]).sum())
        largest = torch.maximum(largest.to(some.dtype), some.abs().max())
    count = len(rows)
    return OutputLogits(
        std=std / count,
        max_abs=float(largest),
        log_sum_exp=sums / count,
        loss=loss / count,
        ln_vocab=math.log(rows.shape[1]),
    )
