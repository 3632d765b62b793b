"""The page of an audit: verdict, findings, figures over depth, tables."""

from pathlib import Path

from spikeless.preflight.figures import KINDS, sections
from spikeless.preflight.measurements import Measurements
from spikeless.preflight.quantities import QUANTITIES
from spikeless.preflight.result import AuditReport
from spikeless.preflight.summary import COLUMNS, audited, batch, layer_rows, passed, ranked, verdict
from spikeless.report.page import write_page
from spikeless.words import number

__all__ = ["write_audit_page"]

TEMPLATE = Path(__file__).with_name("audit.html.jinja")
WORDS = {"fail": ("✗", "fail", "bad"), "warn": ("▲", "warn", "caution"), "pass": ("✓", "pass", "good")}


def write_audit_page(report: AuditReport, path: Path) -> None:
    """Write an audit as one self-contained HTML file, crash-safely.

    Args:
        report: an audit, also one of theory only.
        path: the file to write.

    Raises:
        UserError: the file cannot be written.
    """
    measured = report.measured
    drawn = sections(measured)
    write_page(
        path,
        TEMPLATE,
        title=f"Audit of {measured.model.name}",
        sections=drawn,
        report=report,
        measured=measured,
        words=WORDS,
        kinds=KINDS,
        audited=audited(measured),
        batch=batch(measured),
        verdict=verdict(report),
        findings=ranked(report.findings),
        passed=passed(report.findings),
        quantities=[(title, number(value)) for title, value in _quantities(measured) if value is not None],
        columns=COLUMNS,
        layers=layer_rows(measured),
        matrices=matrix_rows(measured),
        notes=_notes(measured),
        details=details(measured),
        number=number,
    )


def matrix_rows(measured: Measurements) -> list[list[str]]:
    """Of each matrix: layer, name, role, shape, std, exact and Gaussian spectral norm, their ratio."""
    rows = []
    for layer in measured.layers:
        for matrix in (each for sub_layer in layer.sub_layers for each in sub_layer.matrices):
            exact, gaussian = matrix.spectral_norm, matrix.gaussian
            ratio = exact / gaussian if exact is not None and gaussian else None
            numbers = map(number, (matrix.std, exact, gaussian, ratio))
            rows.append([str(layer.index), matrix.name, matrix.role, " × ".join(map(str, matrix.shape)), *numbers])
    return rows


def details(measured: Measurements) -> dict[str, dict[str, str]]:
    """What was audited and on what, by table."""
    model, given = measured.model, measured.batch
    tables = {
        "Model": {
            "name": model.name,
            "architecture": model.architecture,
            "weights": model.state,
            "techniques": " + ".join(model.techniques) or "none",
            "parameters": f"{model.parameters:,}",
            "layers": str(model.num_layers),
            "width": str(model.width),
            "vocabulary": f"{model.vocab_size:,}",
            "tied head": {True: "yes", False: "no", None: "no head found"}[model.tied],
            "weight decay on": "not known" if measured.decayed_roles is None else ", ".join(measured.decayed_roles),
        }
    }
    if given is not None:
        tables["Batch"] = {
            "source": given.source,
            "sequences": f"{given.sequences:,}",
            "tokens": f"{given.tokens:,}",
            "tokens of the Jacobians": f"{given.jacobian_tokens:,}",
        }
    tables |= _numbers(measured)
    if measured.seconds:
        tables["Seconds"] = {name: f"{value:.2f}" for name, value in measured.seconds.items()}
    return tables


def _numbers(measured: Measurements) -> dict[str, dict[str, str]]:
    theory, rate = measured.theory, measured.learning_rate
    tables = {}
    if measured.tev is not None:
        tables["Embedding"] = {
            "parameter": measured.tev.name,
            "TEV raw, μ and σ": f"{number(measured.tev.mean, 4)}, {number(measured.tev.std)}",
            "TEV effective, μ and σ": f"{number(measured.tev.effective_mean, 4)}, {number(measured.tev.effective_std)}",
            "TEV with positions": number(measured.tev.with_positions_mean, 4),
            "on the way in": measured.tev.entry,
            "rows of one value": f"{measured.tev.padded_rows:,}",
        }
    if theory is not None:
        tables["Theory"] = {
            "embedding std": number(theory.embedding_std, 4),
            "embedding std with the norm's ε": number(theory.embedding_std_with_eps, 4),
            "first-layer FFN gain": number(theory.first_layer_ffn_gain, 4),
            "first-layer FFN gain with positions": number(theory.first_layer_ffn_gain_with_positions, 4),
            "Σ log(1 + gain) [nats]": number(theory.log_gain, 4),
        }
    if measured.logits is not None:
        tables["Logits"] = {
            "std": number(measured.logits.std),
            "largest |logit|": number(measured.logits.max_abs),
            "log-sum-exp, mean [nats]": number(measured.logits.log_sum_exp, 4),
            "loss [nats/token]": number(measured.logits.loss, 4),
            "ln V [nats/token]": number(measured.logits.ln_vocab, 4),
        }
    if rate is not None:
        tables["Learning rate"] = {
            "optimizer": rate.optimizer,
            "ε": number(rate.eps),
            "planned": number(rate.lr),
            "critical, of the first update": number(rate.critical),
            "critical sharpness": number(rate.sharpness),
            "the first update descends": "yes" if rate.descent else "no",
            "range test: averaged loss rises by 0.2 at": number(rate.range_rise),
            "range test blew up at": number(rate.range_limit),
        }
    return tables


def _quantities(measured: Measurements) -> list[tuple[str, float | None]]:
    return [(title, read(measured)) for title, read in QUANTITIES.values()]


def _notes(measured: Measurements) -> list[str]:
    """What bounds assume, each said once, with the layers it is said of."""
    places: dict[str, list[str]] = {}
    for layer in measured.layers:
        for each in layer.sub_layers:
            if each.note:
                places.setdefault(f"{KINDS[each.kind]}: {each.note}", []).append(str(layer.index))
    every = len(measured.layers)
    return [note if len(layers) == every else f"{note} (layer {', '.join(layers)})" for note, layers in places.items()]
