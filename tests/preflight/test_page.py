import json
import math
import re
from dataclasses import replace

import pytest

from spikeless.preflight.figures import sections
from spikeless.preflight.page import details, write_audit_page


@pytest.fixture
def page(tmp_path):
    """Writes a report; gives the HTML without plotly, and the figures."""

    def write(report):
        write_audit_page(report, tmp_path / "audit.html")
        html = (tmp_path / "audit.html").read_text(encoding="utf-8")
        plots = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.DOTALL)[1]
        return re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL), json.loads(plots, parse_constant=refuse)

    return write


def refuse(constant):
    raise AssertionError(constant)


def words_of(html):
    text = re.sub(r"<(style|script).*?</\1>", "", html, flags=re.DOTALL)
    text = re.sub(r"<.*?>", " ", text.replace("<wbr>", ""))
    return re.sub(r" ([:.,])", r"\1", " ".join(text.split()))


def titles(report):
    return [each.title for figures in sections(report.measured).values() for each in figures]


def test_every_report_has_a_page_and_its_figures_are_drawn(any_report, page):
    html, plots = page(any_report)
    assert len(plots) == html.count('class="plot"') == len(titles(any_report))
    for plot in plots:
        for axis in ("xaxis", "yaxis"):
            assert re.search(r"\S+ \[.+\]$", plot["layout"][axis]["title"]["text"])
        for line in plot["data"]:
            values = [each for each in line["y"] if each is not None]
            assert values
            assert plot["layout"]["yaxis"].get("type") != "log" or min(values) > 0


def test_nothing_is_fetched(audit_report, page):
    html, _ = page(audit_report())
    links = re.findall(r'(?:src|href|action|srcset)="(.*?)"', html)
    assert all(each.startswith(("#", "data:,")) for each in links)
    assert all(f'id="{each[1:]}"' in html for each in links if each.startswith("#"))
    assert "default-src 'none'" in html
    assert "://" not in html
    assert "url(" not in html


def test_the_page_says_what_was_found(audit_report, page):
    text = words_of(page(audit_report())[0])
    for part in (
        "Verdict: ✗ fail",
        "1 failure, 1 warning. Score 3.2",
        "✗ fail layer 0, ffn",
        "scaled_embed: first-layer FFN gain 26 → 0.82",
        "▲ warn",
        "47 rows &lt;of&gt; one value &amp; no more",
        "✓ pass 2 checks passed: logits, tev.",
        "spikeless audit gpt2_nano",
        "arXiv 2312.16903",
        "arXiv 2409.07787",
    ):
        assert part in text


def test_estimate_bound_and_measured_have_a_legend_each(audit_report, page):
    html, plots = page(audit_report())
    first = plots[0]
    assert [line["name"] for line in first["data"]] == ["estimate", "bound", "measured"]
    assert first["layout"]["yaxis"]["type"] == "log"
    assert len({(line["line"]["dash"], line["meta"]["color"]) for line in first["data"]}) == 3
    legends = re.findall(r'<div class="key".*?</div>', html, re.DOTALL)
    assert [legend.count("<button") for legend in legends] == [3, 3, 3, 3, 2, 4]
    assert 'class="legend"' not in html


def test_figures_by_kind_of_block(reports):
    assert titles(reports["deep"]) == [
        "Jacobian norm, attention",
        "Jacobian norm, feed-forward",
        "Shortcut σ_x, attention",
        "Shortcut σ_x, feed-forward",
        "Gradient norm, ‖∂L/∂x‖",
        "Residual stream, variance",
        "Attention logits, maximum",
        "Attention entropy",
        "Attention entropy, relative",
        "TEV of every row, effective",
        "Learning-rate range test",
    ]
    assert titles(reports["theory"])[0] == "Jacobian norm, predicted"
    assert titles(reports["parallel"])[:2] == ["Jacobian norm, parallel", "Shortcut σ_x, parallel"]
    assert titles(reports["bare"]) == []


def test_what_is_not_finite_is_a_gap_that_is_named(reports):
    figures = [each for found in sections(reports["broken"].measured).values() for each in found]
    by_title = {each.title: each for each in figures}
    broken = by_title["Jacobian norm, feed-forward"]
    assert broken.note.startswith("not finite in layer 5")
    layers, values = broken.plot.data[2].x, broken.plot.data[2].y
    assert values[layers.index(5)] is None
    assert all(math.isfinite(each) for each in values if each is not None)
    assert "Learning-rate range test" not in by_title
    assert "TEV of every row, effective" not in by_title


def test_the_histogram_shows_every_bin(audit_report):
    (figure,) = sections(audit_report().measured)["Token embedding variability"]
    line = figure.plot.data[0]
    assert sum(line.y) == pytest.approx(100)
    assert (min(line.x), max(line.x)) == (0.018, 0.0215)


def test_matrices_stand_beside_their_estimate(audit_report, page):
    html, _ = page(audit_report(2))
    text = words_of(html)
    assert "blocks.0.ffn_up.weight ffn_up 1024 × 4096 0.02 1.9 1.92 0.99" in text
    assert html.index("<details>") < html.index("blocks.<wbr>0.<wbr>ffn_<wbr>up")


def test_names_are_escaped(audit_report, page):
    evil = "</script><script>alert(1)</script>"
    report = audit_report()
    measured = replace(
        report.measured,
        model=replace(report.measured.model, name=evil, architecture=evil, unplaced=(evil,)),
        layers=tuple(
            replace(each, sub_layers=tuple(replace(sub, note=evil) for sub in each.sub_layers))
            for each in report.measured.layers
        ),
    )
    findings = tuple(replace(each, where=evil, message=evil, advice=evil) for each in report.findings)
    html, _ = page(replace(report, measured=measured, findings=findings, command=evil))
    assert "<script>alert" not in html


def test_accepted_findings_say_so(audit_report, page):
    report = audit_report()
    html, _ = page(replace(report, findings=tuple(replace(each, accepted=True) for each in report.findings)))
    assert html.count("accepted by the baseline") == 3  # in the summary and at each of the two
    assert "Verdict: ✓ pass" in words_of(html)


def test_the_details_name_what_was_audited(reports):
    assert details(reports["deep"].measured)["Theory"]["first-layer FFN gain"] == "25.98"
    assert list(details(reports["bare"].measured)) == ["Model"]
