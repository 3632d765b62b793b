"""Rows of the embedding that hold one single value."""

from spikeless.preflight.findings import Finding, Severity
from spikeless.preflight.measurements import Measurements

__all__ = ["padded_vocabulary"]

FEW = 0.01
MOST = 0.5
MULTIPLE = 64


def padded_vocabulary(measured: Measurements) -> list[Finding]:
    """Counts the rows of the embedding that hold one single value.

    One is the row of a padding token. A vocabulary rounded up to a multiple of 64 or 128 has fewer than 128 of
    them. More than 1 % of the rows otherwise is a warning: tokens whose row was not drawn, or that a checkpoint
    did not have. Beyond half, the embedding was not initialised. The thresholds are ours.

    Reference: Shoeybi et al., arXiv 1909.08053 (vocabulary padded to a multiple of 128).
    """
    tev = measured.tev
    if tev is None or measured.model.vocab_size < 1:
        return []
    rows, total = tev.padded_rows, measured.model.vocab_size
    share = rows / total
    rounded = total % MULTIPLE == 0 and rows < 2 * MULTIPLE and share < MOST
    severity: Severity = "pass" if rows <= 1 or share <= FEW or rounded else "fail" if share > MOST else "warn"
    return [
        Finding(
            check="padded_vocabulary",
            code="rows" if severity == "pass" else "many-rows",
            severity=severity,
            where=tev.name,
            message=f"{rows} of {total} rows ({share:.2g}) hold one single value",
            value=share,
            threshold=MOST if severity == "fail" else FEW,
            why=""
            if severity == "pass"
            else "a vocabulary is padded to a multiple of 64 or 128, which is fewer rows than these",
            consequence=""
            if severity == "pass"
            else "Such a token carries nothing into the model; with a tied head its logit is fixed, and it takes part "
            "in the softmax.",
            advice=""
            if severity == "pass"
            else "Draw the rows of all tokens that occur, and mask padded ones in the head.",
        )
    ]
