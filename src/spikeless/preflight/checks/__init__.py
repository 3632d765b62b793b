"""Checks: one subject per file, each a pure function of what was measured. The folder is the registry."""

from collections.abc import Sequence
from typing import Protocol

from spikeless.config import find, names_in
from spikeless.preflight.findings import Finding
from spikeless.preflight.measurements import Measurements

__all__ = ["Check", "run_checks"]


class Check(Protocol):
    """A function of the measurements."""

    def __call__(self, measured: Measurements) -> Sequence[Finding]:
        """Findings, at least one that passes where something could be judged; none where nothing could."""
        ...


def run_checks(measured: Measurements) -> list[Finding]:
    """All checks, in the order of their names."""
    return [finding for name in names_in("preflight.checks") for finding in find("preflight.checks", name)(measured)]
