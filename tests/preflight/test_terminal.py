import io
from dataclasses import replace

import pytest
from rich.console import Console

from spikeless.preflight.terminal import render
from spikeless.words import number


def printed(report, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(render(report))
    return console.file.getvalue()


def flat(text):
    return " ".join(text.split())


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_cut_off(any_report, width):
    text = printed(any_report, width)
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    for finding in any_report.findings:
        if finding.severity != "pass":
            for part in (finding.message, finding.consequence, finding.advice, finding.where):
                assert part in flat(text)


def test_a_report_in_words(audit_report):
    text = flat(printed(audit_report()))
    for part in (
        "gpt2_nano: gpt2, initial weights, 124M parameters, 24 layers × 1024, vocabulary 50,257, tied head",
        "2 sequences, 1,024 tokens of pydocs; Jacobians at 64 tokens",
        "✗ fail layer 0, ffn shortcut/small-shortcut",
        "scaled_embed: first-layer FFN gain 26 → 0.82 (cost: none)",
        "2 checks passed: logits, tev",
        "18 of 24 layers are left out",
        "loss [nats/token]",
        "Verdict: ✗ fail, 1 failure, 1 warning",
        "Score: 3.2",
    ):
        assert part in text
    assert text.index("✗ fail") < text.index("! warn") < text.index("✓ pass") < text.index("Verdict")


def rows_of(text):
    return [line.split() for line in text.splitlines() if len(line.split()) > 1 and line.split()[0].isdigit()]


def layers_of(text):
    kinds = ("attention", "ffn", "parallel", "unknown")
    return list(dict.fromkeys(int(row[0]) for row in rows_of(text) if row[1] in kinds))


def test_few_layers_are_all_shown_and_of_many_the_worst(audit_report, reports):
    assert layers_of(printed(audit_report(12))) == list(range(12))
    assert layers_of(printed(audit_report(13))) == [0, 1, 2, 10, 11, 12]
    assert layers_of(printed(reports["broken"])) == [0, 1, 2, 5, 21, 22, 23]
    report = audit_report()
    layers = list(report.measured.layers)
    for index in (7, 15):
        first, second = layers[index].sub_layers
        layers[index] = replace(layers[index], sub_layers=(first, replace(second, measured=100.0 + index)))
    worse = replace(report, measured=replace(report.measured, layers=tuple(layers)))
    assert layers_of(printed(worse)) == [0, 1, 2, 7, 15, 21, 22, 23]


def test_theory_only_shows_what_is_predicted(reports):
    text = printed(reports["theory"])
    assert "no activations" in text
    assert ["0", "ffn", "0.02", "27"] in rows_of(text)
    assert "measured" not in text.partition("lay-")[2]


def test_not_finite_and_not_measured_have_signs(reports):
    rows = {(row[0], row[1]): row[2:] for row in rows_of(printed(reports["broken"], 120))}
    assert rows["5", "ffn"][:5] == ["NaN", "NaN", "NaN", "∞", "NaN"]
    assert rows["0", "ffn"][-1] == "–"


def test_accepted_findings_come_last_and_do_not_count(audit_report):
    report = audit_report()
    findings = tuple(replace(each, accepted=each.severity == "fail") for each in report.findings)
    text = flat(printed(replace(report, findings=findings)))
    assert text.index("! warn wte.weight") < text.index("accepted layer 0, ffn")
    assert "Verdict: ! warn, 0 failures, 1 warning, 1 accepted by the baseline" in text


def test_findings_alike_are_summed_up(audit_report):
    report = audit_report()
    many = tuple(replace(report.findings[1], where=f"layer {index}") for index in range(24))
    text = flat(printed(replace(report, findings=many)))
    assert text.count("To do:") == 3
    assert "and 21 more small-shortcut: layer 3, layer 4," in text
    assert "layer 23" in text


def test_markup_in_names_is_text(reports):
    assert "not placed: [red]head[/]" in printed(reports["bare"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (1.23456e-7, "1.23e-7"),
        (4.5e12, "4.5e12"),
        (1234.5, "1234"),
        (99_999.9, "1e5"),
        (float("nan"), "NaN"),
        (float("-inf"), "-∞"),
        (-1e-10, "-1e-10"),
    ],
)
def test_numbers_are_short(value, text):
    assert number(value) == text
