"""Token embeddings drawn with a standard deviation near one."""

import math

from spikeless.preflight.findings import Finding
from spikeless.preflight.measurements import Measurements, TensorReading

__all__ = ["embedding_std"]

NEAR_ONE = 0.5
LOUD = 1.5
DEAFENING = 5.0


def embedding_std(measured: Measurements) -> list[Finding]:
    """Asks of an embedding with a standard deviation near one whether it is decayed, and whether it is the head too.

    A large embedding keeps the first shortcuts large, which is what condition 2 asks for. But weight decay shrinks it
    step by step, rows of rare tokens most of all, and the protection goes with it; 0.5 is half of what was meant. As
    a head, it gives logits of std sigma sqrt(D) for normalised features: s^2/2 nats above ln V, 1.1 nats at 1.5 and
    12.5 at 5. Measured logits decide where there are any, since a multiplier may stand before the head. If it is not
    known what is decayed, it passes with the remark. The thresholds are ours.

    Reference: Takase et al., arXiv 2312.16903; pytorch/torchtitan#2342 for a tied head with a loss beyond 500.
    """
    if measured.model.state != "initial":
        return []
    embeddings = [each for each in measured.tensors if each.role == "token_embedding" and math.isfinite(each.std)]
    if not embeddings:
        return []
    embedding = max(embeddings, key=lambda each: each.std)
    found = [*_tied(embedding, measured), *_decayed(embedding, measured)] if embedding.std >= NEAR_ONE else []
    return found or [_fine(embedding, measured)]


def _tied(embedding: TensorReading, measured: Measurements) -> list[Finding]:
    if not measured.model.tied:
        return []
    seen = measured.logits
    logit_std = embedding.std * math.sqrt(max(1, measured.model.width)) if seen is None else seen.std
    if logit_std <= LOUD:
        return []
    severe = logit_std > DEAFENING
    return [
        Finding(
            check="embedding_std",
            code="tied",
            severity="fail" if severe else "warn",
            where=embedding.name,
            message=f"the head is the embedding, whose std is {embedding.std:.3g}: logits have std {logit_std:.3g}",
            value=logit_std,
            threshold=DEAFENING if severe else LOUD,
            why=f"random logits of std s cost s^2/2 nats: {DEAFENING**2 / 2 if severe else LOUD**2 / 2:.3g} here",
            consequence="The first loss is far above ln V, and the first updates tear at the embedding.",
            advice="Untie the head (embed_std_one does), or draw the embedding small and scale it behind the look-up "
            "(scaled_embed).",
        )
    ]


def _decayed(embedding: TensorReading, measured: Measurements) -> list[Finding]:
    if "token_embedding" not in (measured.decayed_roles or ()):
        return []
    return [
        Finding(
            check="embedding_std",
            code="decayed",
            severity="warn",
            where=embedding.name,
            message=f"the embedding has std {embedding.std:.3g} and is under weight decay",
            value=embedding.std,
            threshold=NEAR_ONE,
            why="an embedding of std 1 is drawn to keep the first shortcuts large; decay undoes it",
            consequence="The shortcuts shrink during the run, and with them the stability they gave at the start.",
            advice="Leave the token embedding out of weight decay, or put a norm or a multiplier behind it.",
        )
    ]


def _fine(embedding: TensorReading, measured: Measurements) -> Finding:
    unknown = embedding.std >= NEAR_ONE and measured.decayed_roles is None
    return Finding(
        check="embedding_std",
        code="std",
        severity="pass",
        where=embedding.name,
        message=f"the embedding has std {embedding.std:.3g}"
        + ("; leave it out of weight decay, which would undo it" if unknown else ""),
        value=embedding.std,
        threshold=NEAR_ONE,
    )
