"""Known findings: what an earlier audit found already does not fail a later one."""

from dataclasses import replace
from pathlib import Path

from spikeless.preflight.findings import SEVERITIES
from spikeless.preflight.result import AuditReport, read_audit

__all__ = ["accept"]


def accept(report: AuditReport, baseline: Path) -> AuditReport:
    """The report with those warnings and failures accepted that the baseline has too, no less severe.

    Args:
        report: an audit.
        baseline: the `--json` file of an earlier audit.

    Raises:
        UserError: the file is no audit report.
    """
    known: dict[str, int] = {}
    for finding in read_audit(baseline).findings:
        known[finding.key] = max(known.get(finding.key, 0), SEVERITIES.index(finding.severity))
    findings = (
        replace(each, accepted=each.accepted or 0 < SEVERITIES.index(each.severity) <= known.get(each.key, 0))
        for each in report.findings
    )
    return replace(report, findings=tuple(findings))
