import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from spikeless.preflight.difference import difference, difference_json


def printed(a, b, width=100):
    console = Console(file=io.StringIO(), width=width)
    console.print(difference(a, b))
    return console.file.getvalue()


@pytest.fixture
def healthier(audit_report):
    """Without the failure, its warning a failure, and with a new warning."""
    report = audit_report()
    measured = replace(report.measured, model=replace(report.measured.model, name="gpt2_nano+[scaled]"))
    _, failure, _, warning = report.findings
    findings = (replace(warning, severity="fail"), replace(failure, where="layer 9", severity="warn"))
    return replace(report, measured=measured, findings=findings, score=1.6)


def test_quantities_and_findings_side_by_side(audit_report, healthier):
    text = printed(audit_report(), healthier)
    for part in (
        "A: gpt2_nano",
        "B: gpt2_nano+[scaled]",
        "✗ fail",
        "0.5",
        "loss [nats/token]",
        "critical learning rate",
    ):
        assert part in text
    assert "Findings only in A, gpt2_nano:" in text
    assert "✗ fail layer 0, ffn" in text
    assert "! warn layer 9" in text
    assert "! warn → ✗ fail wte.weight" in text


def test_the_json_is_strict_and_complete(audit_report, healthier, reports):
    data = json.loads(json.dumps(difference_json(audit_report(), healthier), allow_nan=False))
    assert data["a"] == {"target": "gpt2_nano", "verdict": "fail"}
    assert data["quantities"]["score"] == {"a": 3.2, "b": 1.6}
    assert data["quantities"]["largest_bound"]["a"] == pytest.approx(1 + 1.6 * 27)
    assert [each["key"] for each in data["findings"]["only_a"]] == ["shortcut/small-shortcut@layer 0, ffn"]
    assert [each["severity"] for each in data["findings"]["only_b"]] == ["warn"]
    assert [(each["a"], each["b"]) for each in data["findings"]["changed"]] == [("warn", "fail")]
    broken = difference_json(audit_report(), reports["broken"])
    assert broken["quantities"]["largest_measured"]["b"] == "NaN"
    json.dumps(broken, allow_nan=False)


def test_a_report_does_not_differ_from_itself(any_report):
    text = printed(any_report, any_report)
    assert "The same findings." in text
    data = difference_json(any_report, any_report)
    assert data["findings"] == {"only_a": [], "only_b": [], "changed": []}
    assert all(each["a"] == each["b"] for each in data["quantities"].values())


def test_reports_of_all_kinds_against_each_other(reports):
    for a in reports.values():
        for b in reports.values():
            assert all(len(line) <= 80 for line in printed(a, b, width=80).splitlines())
