"""Everything that is computed from a comparison, as plain data for readers without this package."""

from dataclasses import asdict
from typing import Any

from spikeless.experiments.analysis.comparison import Comparison
from spikeless.experiments.analysis.definitions import definitions
from spikeless.experiments.analysis.remarks import not_helping, warnings
from spikeless.experiments.analysis.stand_in import stand_in
from spikeless.experiments.analysis.summary import arm_rows, baseline_of, lr_rows

__all__ = ["derived_json"]


def derived_json(comparison: Comparison) -> dict[str, Any]:
    """For `Comparison.write`: one object "derived", not read back."""
    derived = {
        "baseline": baseline_of(comparison),
        "warnings": warnings(comparison),
        "arms": [asdict(row) for row in arm_rows(comparison)],
        "learning_rates": [asdict(row) for row in lr_rows(comparison)],
        "not_helping": not_helping(comparison),
        "stand_in": asdict(stand_in(comparison.outcomes)),
        "definitions": definitions(comparison),
    }
    return {"derived": derived}
