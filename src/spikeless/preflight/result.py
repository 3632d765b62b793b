"""The finished audit: its verdict, its exit code, and its JSON, which later versions and other tools read."""

import math
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import cattrs
from cattrs.v import format_exception

from spikeless.errors import UserError
from spikeless.files import portable, read_json
from spikeless.preflight.findings import SEVERITIES, Finding, Severity, worst
from spikeless.preflight.measurements import Measurements

__all__ = ["FORMAT", "AuditReport", "FailOn", "counts", "read_audit"]

FORMAT = 1  # grows when a reader of the old format would misunderstand; new keys alone do not make a new format
NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
PLAIN = ("model", "batch", "theory", "tev", "logits", "layers", "learning_rate", "tensors", "decayed_roles", "seconds")

FailOn = Literal["fail", "warn", "never"]


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """What an audit measured and concluded.

    Attributes:
        measured: the numbers.
        findings: of all checks, those that pass among them.
        score: one number per model, see `score`. None if not known.
        command: that reproduces it.
    """

    measured: Measurements
    findings: tuple[Finding, ...]
    score: float | None
    command: str = ""

    @property
    def verdict(self) -> Severity:
        """The highest severity of the findings that are not accepted."""
        return worst(self.findings)

    def exit_code(self, fail_on: FailOn) -> int:
        """1 if a finding that is not accepted has this severity or a higher one, else 0."""
        return int(any(counts(finding, fail_on) for finding in self.findings))

    def to_json(self) -> dict[str, Any]:
        """Strict JSON as docs/audit.schema.json describes it; non-finite numbers as in metrics.jsonl."""
        data = _converter.unstructure(self.measured)
        findings = [{"key": each.key, **_converter.unstructure(each)} for each in self.findings]
        head = {
            "format": FORMAT,
            "spikeless": _version(),
            "command": self.command,
            "target": self.measured.model.name,
            "verdict": self.verdict,
            "score": self.score,
            "findings": findings,
        }
        growth = {"gradient": data["gradient_growth"], "residual": data["residual_growth"]}
        return portable({**head, **{key: data[key] for key in PLAIN}, "growth": growth})

    @classmethod
    def from_json(cls, data: Any) -> "AuditReport":
        """The inverse of `to_json`; keys that it does not know are passed over.

        Raises:
            UserError: no audit report, one of another format, or a damaged one.
        """
        if not isinstance(data, dict) or "format" not in data or "findings" not in data:
            raise UserError("not an audit report; expected what `spikeless audit --json FILE` writes")
        if data["format"] != FORMAT:
            raise UserError(
                f"an audit report of format {data['format']!r}; this version reads format {FORMAT}: "
                "audit again, or use the version that wrote it"
            )
        try:
            growth = data["growth"]
            measured = {key: data[key] for key in PLAIN}
            measured |= {"gradient_growth": growth["gradient"], "residual_growth": growth["residual"]}
            fields = {key: data[key] for key in ("findings", "score", "command")} | {"measured": measured}
        except (KeyError, TypeError) as error:
            raise UserError(f"a damaged audit report: it lacks {error}") from None
        try:
            return _converter.structure(fields, cls)
        except Exception as error:
            raise UserError(
                f"a damaged audit report: {cattrs.transform_error(error, format_exception=_told)[0]}"
            ) from None


def counts(finding: Finding, fail_on: FailOn) -> bool:
    """Whether it makes the audit end with exit code 1."""
    if fail_on == "never" or finding.accepted:
        return False
    return SEVERITIES.index(finding.severity) >= SEVERITIES.index(fail_on)


def read_audit(path: Path) -> AuditReport:
    """The report in a file that `--json` wrote.

    Raises:
        UserError: missing, unreadable, no audit report, one of another format, or a damaged one.
    """
    try:
        return AuditReport.from_json(read_json(path))
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path} is {error}") from None


def _version() -> str:
    try:
        return metadata.version("spikeless")
    except metadata.PackageNotFoundError:
        return "unknown"


def _float(value: Any, _: Any) -> float:
    number = NON_FINITE.get(value, value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise TypeError(f"expected a number, got {value!r}")
    return float(number)


def _exactly(kind: type, what: str) -> Any:
    def structure(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"expected {what}, got {value!r}")
        return value

    return structure


def _told(error: BaseException, hint: Any) -> str:
    message = str(error)
    return message if message.startswith("expected") else format_exception(error, hint)


_converter = cattrs.Converter()
_converter.register_structure_hook(float, _float)
for _kind, _what in ((int, "a whole number"), (str, "a text"), (bool, "true or false")):
    _converter.register_structure_hook(_kind, _exactly(_kind, _what))
