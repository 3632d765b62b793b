"""What is said of an audit in words and table cells, for the terminal and for the page."""

import math
from collections.abc import Sequence

from spikeless.preflight.findings import SEVERITIES, Finding
from spikeless.preflight.measurements import LayerReading, Measurements, SubLayerReading, Theory
from spikeless.preflight.result import AuditReport
from spikeless.words import EMPTY, count, counted, number

__all__ = [
    "COLUMNS",
    "audited",
    "batch",
    "layer_rows",
    "passed",
    "ranked",
    "shown_layers",
    "verdict",
]

COLUMNS = {
    "layer": "layer",
    "kind": "sub-layer",
    "shortcut_min": "σ_x, min",
    "shortcut_median": "σ_x, median",
    "estimate": "estimate",
    "bound": "bound",
    "measured": "measured",
    "gradient_norm": "‖∂L/∂x‖",
    "logit_max": "attention logit, max",
    "entropy": "entropy [nats]",
    "predicted": "σ_x, predicted",
    "gain": "1 + gain, predicted",
}
FIXED = ("layer", "kind")
ENDS = 3  # layers that are always shown from each end
WORST = 3
MANY = 12  # layers up to which all are shown


def audited(measured: Measurements) -> str:
    """What was audited, in one line."""
    model = measured.model
    head = {True: "tied head", False: "own head", None: "no head found"}[model.tied]
    added = f" with {' + '.join(model.techniques)}" if model.techniques else ""
    return (
        f"{model.name}{added}: {model.architecture}, {model.state} weights, {count(model.parameters)} parameters, "
        f"{counted(model.num_layers, 'layer')} × {model.width}, vocabulary {model.vocab_size:,}, {head}"
    )


def batch(measured: Measurements) -> str:
    """What the activations come from, in one line."""
    given = measured.batch
    if given is None:
        return "Theory only: no activations, so nothing was measured on tokens"
    return (
        f"{counted(given.sequences, 'sequence')}, {counted(given.tokens, 'token')} of {given.source}; "
        f"Jacobians at {counted(given.jacobian_tokens, 'token')}"
    )


def verdict(report: AuditReport) -> str:
    """What the verdict counts, in one line."""
    shown = [each for each in report.findings if not each.accepted]
    failures, warnings = (sum(each.severity == severity for each in shown) for severity in ("fail", "warn"))
    accepted = sum(each.accepted for each in report.findings)
    parts = [counted(failures, "failure"), counted(warnings, "warning")]
    parts += [f"{accepted} accepted by the baseline"] if accepted else []
    return ", ".join(parts)


def ranked(findings: Sequence[Finding]) -> list[Finding]:
    """Failures, then warnings, then what is accepted; those that pass are left out."""
    found = [each for each in findings if each.severity != "pass"]
    return sorted(found, key=lambda each: (each.accepted, -SEVERITIES.index(each.severity)))


def passed(findings: Sequence[Finding]) -> str:
    """The checks that passed, in one line; a check with a warning or a failure is not among them."""
    checks = {each.check for each in findings} - {each.check for each in findings if each.severity != "pass"}
    if not checks:
        return "no check passed as a whole"
    return f"{counted(len(checks), 'check')} passed: {', '.join(sorted(checks))}"


def shown_layers(layers: Sequence[int], worst: Sequence[int]) -> list[int]:
    """All of a few layers; of many the first, the last and the worst ones."""
    if len(layers) <= MANY:
        return list(layers)
    kept = {*layers[:ENDS], *layers[-ENDS:], *[each for each in worst if each in layers][:WORST]}
    return [each for each in layers if each in kept]


def worst_layers(measured: Measurements) -> list[int]:
    """The layers by their largest Jacobian, what is not finite first: measured, else bound, else estimate."""
    sizes = {layer.index: max(map(_size, layer.sub_layers), default=0.0) for layer in measured.layers}
    if not any(sizes.values()) and measured.theory is not None:
        sizes = {}
        for each in measured.theory.sub_layers:
            sizes[each.layer] = max(sizes.get(each.layer, 0.0), math.inf if math.isnan(each.gain) else each.gain)
    return sorted(sizes, key=lambda layer: -sizes[layer])


def layer_rows(measured: Measurements, layers: Sequence[int] | None = None) -> list[dict[str, str]]:
    """A cell for each of `COLUMNS`, sub-layer by sub-layer, without the columns that are empty throughout.

    Args:
        measured: with activations, or theory only.
        layers: those that are wanted, None for all.
    """
    rows = [row for layer in measured.layers for row in _rows_of(layer)]
    if all(set(row.values()) - {row["layer"], row["kind"]} <= {EMPTY} for row in rows):
        rows = _theory_rows(measured.theory) if measured.theory is not None else []
    kept = [key for key in COLUMNS if key in FIXED or any(row.get(key, EMPTY) != EMPTY for row in rows)]
    wanted = None if layers is None else set(map(str, layers))
    return [{key: row.get(key, EMPTY) for key in kept} for row in rows if wanted is None or row["layer"] in wanted]


def _rows_of(layer: LayerReading) -> list[dict[str, str]]:
    """Numbers of the whole layer stand in the row of its first sub-layer, those of attention in attention's."""
    rows = []
    for position, each in enumerate(layer.sub_layers):
        row = {"layer": str(layer.index), "kind": each.kind}
        if each.shortcut is not None:
            row |= {"shortcut_min": number(each.shortcut.min), "shortcut_median": number(each.shortcut.median)}
        row |= {key: number(getattr(each, key)) for key in ("estimate", "bound", "measured")}
        if position == 0:
            row["gradient_norm"] = number(layer.gradient_norm)
        if layer.attention is not None and each is _attending(layer):
            row |= {"logit_max": number(layer.attention.logit_max), "entropy": number(layer.attention.entropy)}
        rows.append(row)
    return rows


def _attending(layer: LayerReading) -> SubLayerReading:
    return next((each for each in layer.sub_layers if each.kind in ("attention", "parallel")), layer.sub_layers[0])


def _theory_rows(theory: Theory) -> list[dict[str, str]]:
    return [
        {
            "layer": str(each.layer),
            "kind": each.kind,
            "predicted": number(each.shortcut),
            "gain": number(1 + each.gain),
        }
        for each in theory.sub_layers
    ]


def _size(sub_layer: SubLayerReading) -> float:
    given = (sub_layer.measured, sub_layer.bound, sub_layer.estimate)
    value = next((each for each in given if each is not None), 0.0)
    return math.inf if math.isnan(value) else value
