import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spikeless.errors import UserError
from spikeless.files import write_json
from spikeless.preflight.result import AuditReport, read_audit
from spikeless.preflight.schema import schema

SCHEMA = Path(__file__).parents[2] / "docs" / "audit.schema.json"


def strict(data: Any) -> Any:
    """`data` as a strict reader gets it."""
    return json.loads(json.dumps(data, allow_nan=False))


TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def problems(data: Any, rule: dict[str, Any], root: dict[str, Any], where: str = "$") -> list[str]:
    """What the part of JSON Schema that ours uses has against `data`."""
    if "$ref" in rule:
        return problems(data, root["$defs"][rule["$ref"].rpartition("/")[2]], root, where)
    if "anyOf" in rule:
        every = [problems(data, each, root, where) for each in rule["anyOf"]]
        return [] if [] in every else [each for one in every for each in one]
    if "const" in rule or "enum" in rule:
        return [] if data in rule.get("enum", [rule.get("const")]) else [f"{where}: {data!r}"]
    if not isinstance(data, TYPES[rule["type"]]) or (isinstance(data, bool) and rule["type"] != "boolean"):
        return [f"{where}: {data!r} is no {rule['type']}"]
    found = []
    if isinstance(data, dict):
        found += [f"{where}: lacks {key}" for key in rule.get("required", []) if key not in data]
        for key, value in data.items():
            each = rule.get("properties", {}).get(key, rule.get("additionalProperties"))
            found += problems(value, each, root, f"{where}.{key}") if each else [f"{where}: {key} is not described"]
    if isinstance(data, list):
        if not rule.get("minItems", 0) <= len(data) <= rule.get("maxItems", len(data)):
            found.append(f"{where}: {len(data)} items")
        for index, value in enumerate(data):
            each = rule["items"] if "items" in rule else rule["prefixItems"][index]
            found += problems(value, each, root, f"{where}[{index}]")
    return found


def test_a_report_survives_its_json(any_report, tmp_path):
    data = strict(any_report.to_json())
    assert next(iter(data)) == "format"
    again = AuditReport.from_json(data)
    assert repr(again) == repr(any_report)  # repr, since NaN is not equal to itself
    write_json(tmp_path / "a.json", any_report.to_json())
    assert read_audit(tmp_path / "a.json").to_json() == any_report.to_json()


def test_a_report_is_as_the_schema_says(any_report):
    root = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert problems(strict(any_report.to_json()), root, root) == []


def test_the_schema_finds_what_is_wrong(audit_report):
    root = schema()
    data = strict(audit_report().to_json())
    data["layers"][1]["sub_layers"][0]["kind"] = "convolution"
    data["tev"]["mean"] = "much"
    del data["score"]
    found = problems(data, root, root)
    assert len(found) >= 3
    assert {each.partition(":")[0] for each in found} >= {"$", "$.tev.mean"}


def test_the_page_of_the_schema_is_that_of_the_code():
    shown = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert shown == schema(), "run python -m spikeless.preflight.schema > docs/audit.schema.json"


def test_every_number_of_the_schema_is_described():
    defs = schema()["$defs"]
    bare = {"LayerReading", "Spread", "BatchReading", "Measurements", "number"}
    for name, each in defs.items():
        assert each["description"], name
        if name not in bare and name != "SubLayerReading":
            described = [rule for rule in each["properties"].values() if "description" in rule]
            assert described, name


def test_the_path_that_is_promised(audit_report):
    data = audit_report().to_json()
    assert data["theory"]["first_layer_ffn_gain"] == 25.98
    assert data["target"] == "gpt2_nano"
    assert data["growth"]["gradient"]["ratio"] == 0.01
    assert data["findings"][1]["key"] == "shortcut/small-shortcut@layer 0, ffn"
    assert data["learning_rate"]["range_losses"][-1] == "Infinity"


def test_the_exit_code(audit_report):
    failing = audit_report()
    warning = replace(failing, findings=tuple(each for each in failing.findings if each.severity != "fail"))
    passing = replace(failing, findings=())
    accepted = replace(failing, findings=tuple(replace(each, accepted=True) for each in failing.findings))
    for report, verdict, codes in (
        (failing, "fail", (1, 1, 0)),
        (warning, "warn", (0, 1, 0)),
        (passing, "pass", (0, 0, 0)),
        (accepted, "pass", (0, 0, 0)),
    ):
        assert report.verdict == verdict
        assert tuple(report.exit_code(fail_on) for fail_on in ("fail", "warn", "never")) == codes


def test_keys_of_a_later_version_are_passed_over(audit_report):
    data = audit_report().to_json()
    data["later"] = 1
    data["layers"][0]["later"] = [1]
    data["findings"][0]["later"] = None
    assert AuditReport.from_json(data) == audit_report()


@pytest.mark.parametrize("data", [None, [], {}, {"format": 1}, {"findings": []}])
def test_what_is_no_report_is_refused(data):
    with pytest.raises(UserError, match="not an audit report"):
        AuditReport.from_json(data)


def test_another_format_is_refused(audit_report):
    with pytest.raises(UserError, match="format 2; this version reads format 1"):
        AuditReport.from_json(audit_report().to_json() | {"format": 2})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model", "width"), "wide", "whole number"),
        (("model", "width"), None, "whole number"),
        (("tev", "mean"), "0.1", "expected a number"),
        (("tev", "mean"), True, "expected a number"),
        (("layers",), 5, "layers"),
        (("layers", 0, "sub_layers", 0, "kind"), "conv", "kind"),
        (("growth",), None, "damaged"),
        (("growth",), {}, "lacks 'gradient'"),
        (("seconds",), [], "seconds"),
        (("findings", 0), "tev", r"findings\[0\]"),
        (("score",), [1], "score"),
    ],
)
def test_a_damaged_report_is_refused(audit_report, path, value, message):
    data = part = strict(audit_report().to_json())
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(UserError, match=message):
        AuditReport.from_json(data)


@pytest.mark.parametrize("key", ["score", "model", "layers", "growth", "command", "theory"])
def test_a_report_that_lacks_a_part_is_refused(audit_report, key):
    data = audit_report().to_json()
    del data[key]
    with pytest.raises(UserError, match=f"lacks '{key}'"):
        AuditReport.from_json(data)


def test_errors_name_the_file(tmp_path):
    (tmp_path / "other.json").write_text('{"name": 1}')
    (tmp_path / "broken.json").write_text("{")
    for name in ("other.json", "broken.json", "missing.json"):
        with pytest.raises(UserError, match=name):
            read_audit(tmp_path / name)


def test_negative_infinity_survives(audit_report):
    report = replace(audit_report(), score=-math.inf)
    assert report.to_json()["score"] == "-Infinity"
    assert AuditReport.from_json(report.to_json()).score == -math.inf
