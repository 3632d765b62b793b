"""The JSON schema of an audit report, from the dataclasses; `python -m spikeless.preflight.schema` prints it."""

import inspect
import json
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin

from spikeless.preflight.findings import SEVERITIES, Finding
from spikeless.preflight.measurements import GrowthFit, Measurements
from spikeless.preflight.result import FORMAT, PLAIN, AuditReport

__all__ = ["schema"]

SCALARS = {str: {"type": "string"}, bool: {"type": "boolean"}, int: {"type": "integer"}}
NUMBER = {
    "description": "A number; one that is not finite is a string.",
    "anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}],
}


def schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12, of what `AuditReport.to_json` gives."""
    defs: dict[str, Any] = {"number": NUMBER}
    hints = typing.get_type_hints(Measurements)
    fits = _of(GrowthFit | None, defs)
    properties: dict[str, Any] = {
        "format": {"const": FORMAT, "description": "Of this file; readers refuse another one."},
        "spikeless": {"type": "string", "description": "The version that wrote it."},
        "command": {"type": "string", "description": "That reproduces it."},
        "target": {"type": "string", "description": "What was audited, as the user gave it."},
        "verdict": {"enum": list(SEVERITIES), "description": "Highest severity of findings that are not accepted."},
        "score": {**_of(float | None, defs), "description": _descriptions(AuditReport)["score"]},
        "findings": {"type": "array", "items": _of(Finding, defs)},
        **{key: _of(hints[key], defs) for key in PLAIN},
        "growth": {**_object({"gradient": fits, "residual": fits}), "description": "Over depth."},
    }
    finding = defs["Finding"]
    key = {"type": "string", "description": "What a baseline knows it by."}
    defs["Finding"] = {**finding, **_object({"key": key, **finding["properties"]})}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "spikeless audit report",
        "description": "Later versions may add keys without a new format: pass over those you do not know.",
        **_object(properties),
        "$defs": dict(sorted(defs.items())),
    }


def _of(hint: Any, defs: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type; dataclasses on the way are added to `defs`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in SCALARS:
        return SCALARS[hint]
    if hint is float:
        return {"$ref": "#/$defs/number"}
    if hint is types.NoneType:
        return {"type": "null"}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of(each, defs) for each in arguments]}
    if origin is tuple and arguments[-1] is Ellipsis:
        return {"type": "array", "items": _of(arguments[0], defs)}
    if origin is tuple:
        return {
            "type": "array",
            "prefixItems": [_of(each, defs) for each in arguments],
            "minItems": len(arguments),
            "maxItems": len(arguments),
        }
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _of(arguments[1], defs)}
    if not is_dataclass(hint) or not isinstance(hint, type):
        raise TypeError(f"no schema for {hint}")
    if hint.__name__ not in defs:
        defs[hint.__name__] = {}
        hints, said = typing.get_type_hints(hint), _descriptions(hint)
        properties = {
            each.name: _of(hints[each.name], defs) | ({"description": said[each.name]} if each.name in said else {})
            for each in fields(hint)
        }
        first = (hint.__doc__ or "").partition("\n")[0]
        defs[hint.__name__] = {"description": first, **_object(properties)}
    return {"$ref": f"#/$defs/{hint.__name__}"}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _descriptions(part: type) -> dict[str, str]:
    """What the docstring says of each attribute."""
    listed = inspect.cleandoc(part.__doc__ or "").partition("Attributes:\n")[2]
    said = {}
    for names, words in re.findall(r"^    (\w[\w, ]*): (.*(?:\n      .*)*)", listed, re.MULTILINE):
        said |= {name.strip(): " ".join(words.split()) for name in names.split(",")}
    return said


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2, ensure_ascii=False))
