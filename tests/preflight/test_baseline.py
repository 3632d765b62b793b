from dataclasses import replace

import pytest

from spikeless.errors import UserError
from spikeless.files import write_json
from spikeless.preflight.baseline import accept


@pytest.fixture
def baseline(tmp_path):
    """Writes a report as the baseline."""

    def write(report):
        write_json(tmp_path / "baseline.json", report.to_json())
        return tmp_path / "baseline.json"

    return write


def test_known_findings_are_accepted_and_new_ones_are_not(audit_report, baseline):
    report = audit_report()
    known = replace(report, findings=tuple(each for each in report.findings if each.severity != "warn"))
    accepted = accept(report, baseline(known))
    assert [each.accepted for each in accepted.findings] == [False, True, False, False]
    assert accepted.verdict == "warn"
    assert accepted.measured == report.measured


def test_numbers_may_differ(audit_report, baseline):
    report = audit_report()
    other = replace(report, findings=tuple(replace(each, value=1.0, message="other") for each in report.findings))
    assert accept(report, baseline(other)).verdict == "pass"


def test_a_finding_that_got_worse_is_not_accepted(audit_report, baseline):
    report = audit_report()
    milder = tuple(replace(each, severity="warn" if each.severity == "fail" else "pass") for each in report.findings)
    assert accept(report, baseline(replace(report, findings=milder))) == report


def test_a_finding_that_got_better_is_accepted(audit_report, baseline):
    report = audit_report()
    worse = tuple(replace(each, severity="fail") for each in report.findings)
    accepted = accept(report, baseline(replace(report, findings=worse)))
    assert accepted.verdict == "pass"
    assert not any(each.accepted for each in accepted.findings if each.severity == "pass")


def test_what_a_baseline_accepted_stays_known(audit_report, baseline):
    report = audit_report()
    first = accept(report, baseline(report))
    assert accept(report, baseline(first)) == first


def test_of_two_findings_of_one_key_the_worse_counts(audit_report, baseline):
    report = audit_report()
    both = (*report.findings, replace(report.findings[1], severity="pass"))
    assert accept(report, baseline(replace(report, findings=both))).verdict == "pass"


def test_another_file_is_refused(audit_report, tmp_path):
    (tmp_path / "run.json").write_text('{"recipe": "gpt2_nano"}')
    with pytest.raises(UserError, match=r"run.json is not an audit report"):
        accept(audit_report(), tmp_path / "run.json")
    with pytest.raises(UserError, match="cannot read"):
        accept(audit_report(), tmp_path / "none.json")
