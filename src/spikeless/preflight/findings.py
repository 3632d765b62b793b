"""What an audit concludes: findings with their evidence, and the verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["SEVERITIES", "Finding", "Severity", "Suggestion", "worst"]

Severity = Literal["pass", "warn", "fail"]
SEVERITIES: tuple[Severity, ...] = ("pass", "warn", "fail")


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A technique that would help, with its effect computed.

    Attributes:
        technique: as --with takes it.
        quantity: what was evaluated again with the technique applied.
        before, after: its values.
        summary, cost: from the technique's header.
    """

    technique: str
    quantity: str
    before: float
    after: float
    summary: str = ""
    cost: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was checked.

    Attributes:
        check: the file in `preflight/checks`.
        code: what it found, a stable word of the check, such as "norm-gain".
        severity: pass, warn or fail.
        where: layer and tensor, or "model".
        message: the evidence in one sentence, with its numbers.
        value: the number that was judged, None if there is none.
        threshold: what it was judged against.
        why: why that threshold.
        consequence: what it leads to, in one sentence.
        advice: what to do.
        suggestions: techniques with their computed effect, best first.
        accepted: known from a baseline; does not count.
    """

    check: str
    code: str
    severity: Severity
    where: str
    message: str
    value: float | None = None
    threshold: float | None = None
    why: str = ""
    consequence: str = ""
    advice: str = ""
    suggestions: tuple[Suggestion, ...] = ()
    accepted: bool = False

    @property
    def key(self) -> str:
        """What a baseline knows it by; numbers are left out, since they change with every seed."""
        return f"{self.check}/{self.code}@{self.where}"


def worst(findings: Sequence[Finding]) -> Severity:
    """The highest severity of those that are not accepted."""
    found = {each.severity for each in findings if not each.accepted}
    return "fail" if "fail" in found else "warn" if "warn" in found else "pass"
