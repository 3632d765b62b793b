from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from spikeless.preflight.junit import write_junit


@pytest.fixture
def cases(tmp_path):
    """Writes a report and reads its root and test cases."""

    def read(report, fail_on="fail"):
        write_junit(report, tmp_path / "new" / "junit.xml", fail_on)
        root = ET.parse(tmp_path / "new" / "junit.xml").getroot()
        return root, root.findall("testsuite/testcase")

    return read


def outcome(case):
    return [child.tag for child in case]


def test_one_case_a_finding(audit_report, cases):
    root, found = cases(audit_report())
    (suite,) = root
    assert (root.tag, suite.tag) == ("testsuites", "testsuite")
    totals = {"tests": "4", "failures": "1", "errors": "0", "skipped": "0", "time": "12.600"}
    assert totals.items() <= root.attrib.items()
    assert totals.items() <= suite.attrib.items()
    assert [outcome(case) for case in found] == [["system-out"], ["failure"], ["system-out"], ["system-out"]]
    failure = found[1].find("failure")
    assert found[1].get("classname") == "audit.shortcut"
    assert found[1].get("name") == "small-shortcut at layer 0, ffn"
    assert failure.get("type") == "fail"
    assert "scaled_embed: first-layer FFN gain 26 → 0.82" in failure.text
    assert "47 rows <of> one value & no more" in found[3].find("system-out").text


@pytest.mark.parametrize(("fail_on", "failures"), [("fail", 1), ("warn", 2), ("never", 0)])
def test_it_fails_where_the_command_fails(audit_report, cases, fail_on, failures):
    report = audit_report()
    root, _ = cases(report, fail_on)
    assert int(root.get("failures")) == failures
    assert bool(failures) == bool(report.exit_code(fail_on))


def test_what_is_accepted_is_skipped(audit_report, cases):
    report = audit_report()
    findings = tuple(replace(each, accepted=each.severity != "pass") for each in report.findings)
    root, found = cases(replace(report, findings=findings), "warn")
    assert [outcome(case) for case in found] == [["system-out"], ["skipped"], ["system-out"], ["skipped"]]
    assert (root.get("failures"), root.get("skipped")) == ("0", "2")


def test_names_are_unique_and_odd_characters_legal(audit_report, cases):
    report = audit_report()
    odd = replace(
        report.findings[1], message="a\x00b\x1b[0m\ud800 'quoted' \"twice\" ]]> 漢\U0001f600", where="la\x07yer"
    )
    _, found = cases(replace(report, findings=(odd, odd, odd)))
    assert len({(case.get("classname"), case.get("name")) for case in found}) == 3
    assert found[0].find("failure").get("message") == "a�b�[0m� 'quoted' \"twice\" ]]> 漢\U0001f600"


def test_reports_of_all_kinds(any_report, cases):
    root, found = cases(any_report)
    assert len(found) == len(any_report.findings) == int(root.get("tests"))
