"""JUnit XML, as the test reports of GitLab, Jenkins and others read it."""

import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

from spikeless.files import write_text
from spikeless.preflight.findings import Finding
from spikeless.preflight.result import AuditReport, FailOn, counts
from spikeless.words import number

__all__ = ["write_junit"]

# What XML 1.0 cannot carry, not even escaped.
ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(report: AuditReport, path: Path, fail_on: FailOn = "fail") -> None:
    """Write one test case a finding, crash-safely; it fails where the command does.

    Args:
        report: an audit.
        path: the file to write.
        fail_on: the lowest severity that is a failure.

    Raises:
        UserError: the file cannot be written.
    """
    name = _legal(f"spikeless audit {report.measured.model.name}")
    seconds = f"{sum(report.measured.seconds.values()):.3f}"
    suite = ET.Element("testsuite", name=name)
    seen: Counter[str] = Counter()
    for finding in report.findings:
        seen[finding.key] += 1
        case = ET.SubElement(suite, "testcase", classname=f"audit.{finding.check}", name=_name(finding, seen), time="0")
        if counts(finding, fail_on):
            ET.SubElement(case, "failure", message=_legal(finding.message), type=finding.severity).text = text(finding)
        elif finding.accepted:
            ET.SubElement(case, "skipped", message=_legal(f"accepted: {finding.message}"))
        else:
            ET.SubElement(case, "system-out").text = text(finding)
    totals = {
        "tests": str(len(report.findings)),
        "failures": str(len(suite.findall("testcase/failure"))),
        "errors": "0",
        "skipped": str(len(suite.findall("testcase/skipped"))),
        "time": seconds,
    }
    suite.attrib.update(totals)
    suites = ET.Element("testsuites", {"name": name, **totals})
    suites.append(suite)
    ET.indent(suites)
    write_text(path, '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n")


def text(finding: Finding) -> str:
    """All that a finding says, a line each."""
    lines = [f"{finding.severity} at {finding.where}: {finding.message}"]
    lines += [finding.consequence, finding.why and f"Threshold: {finding.why}", finding.advice]
    lines += [
        f"{each.technique}: {each.quantity} {number(each.before)} → {number(each.after)}"
        for each in finding.suggestions
    ]
    return _legal("\n".join(filter(None, lines)))


def _name(finding: Finding, seen: Counter[str]) -> str:
    """Unique, since readers merge test cases of one name."""
    again = f" ({seen[finding.key]})" if seen[finding.key] > 1 else ""
    return _legal(f"{finding.code} at {finding.where}{again}")


def _legal(words: str) -> str:
    return ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", words)
