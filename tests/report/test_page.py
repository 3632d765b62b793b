import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from spikeless.errors import UserError
from spikeless.report import write_report
from spikeless.report.arms import gather
from spikeless.report.figures import MAX_POINTS, figures, smooth, thin


class Page(HTMLParser):
    """The attributes that could fetch something, the scripts, and the text outside of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside = tag if tag in ("script", "style") else ""
        self.references += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts.append(data)
        elif not self.inside:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def comparison(make_run, training_rows):
    """Three arms, one of which diverges."""
    diverged = make_run("a", rows=training_rows(diverge=25), state="unhealthy")
    return [diverged, make_run("b", "mlra"), make_run("c", "mlra+scaled_embed", state="running")]


def report(records, tmp_path, **kwargs) -> tuple[str, Page]:
    path = tmp_path / "report.html"
    write_report(records, path, **{"title": "deep_nano", "command": None} | kwargs)
    html = path.read_text(encoding="utf-8")
    return html, Page(html)


def test_nothing_is_fetched(comparison, tmp_path):
    html, page = report(comparison, tmp_path)
    assert page.references == ["data:,"]  # the icon
    assert "default-src 'none'" in html
    css = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    assert "url(" not in css
    assert "@import" not in css


def test_labels_titles_and_commands_are_escaped(make_run, tmp_path):
    evil = "</script><script>alert(1)</script>"
    records = [make_run("a", evil), make_run("b", optim={"lr": evil})]
    html, page = report(records, tmp_path, title=evil, command=evil)
    assert "<script>alert" not in html
    assert page.tags.count("script") == 3  # figures, plotly.js, ours
    assert evil in page.text


def test_every_axis_has_a_title_with_a_unit(comparison):
    drawn = [figure for section in figures(gather(comparison)).values() for figure in section]
    assert len(drawn) == 8
    for figure in drawn:
        for axis in (figure.plot.layout.xaxis, figure.plot.layout.yaxis):
            assert re.search(r"\S+ \[.+\]$", axis.title.text), figure.title


def test_the_page_carries_the_figures_as_strict_json(comparison, tmp_path):
    def refuse(constant):
        raise AssertionError(constant)

    _, page = report(comparison, tmp_path)
    plots = json.loads(page.scripts[0], parse_constant=refuse)
    assert len(plots) == 8
    assert {trace["meta"]["arm"] for plot in plots for trace in plot["data"]} == {0, 1, 2}


def test_the_page_says_what_was_run_and_how_it_ended(comparison, tmp_path):
    _, page = report(comparison, tmp_path, command="spikeless compare deep_nano")
    for part in (
        "3 arms on deep_nano: 3 runs of 25 to 40 steps, 1 failed.",
        "spikeless compare deep_nano",
        "diverged at step 25",
        "Nothing: the plain recipe deep_nano.",
        "6.93",
        "0 of 2 fields differ",
        "One seed: an illustration.",
    ):
        assert part in page.text


def test_arms_differ_in_colour_and_in_pattern(make_run):
    arms = gather([make_run(f"r{index}", f"t{index}") for index in range(30)])
    assert len({(arm.color, arm.dash, arm.marker) for arm in arms}) == 30
    assert len({(arm.color, arm.dash) for arm in arms[:7]}) == 7


def test_a_single_run_needs_no_legend(make_run, tmp_path):
    _, page = report([make_run(label="mlra")], tmp_path)
    assert "button" not in page.tags
    assert "mlra on deep_nano, 1,234,567 parameters, 40 steps: finished." in page.text


def test_a_run_without_metrics_still_has_a_report(make_run, tmp_path):
    _, page = report([make_run(rows=[], state="unhealthy")], tmp_path)
    assert "unhealthy, step 0 of 40" in page.text


def test_no_runs_is_an_error(tmp_path):
    with pytest.raises(UserError, match="at least one run"):
        write_report([], tmp_path / "report.html", title="none")


def test_divergence_is_marked_in_the_curve(comparison):
    loss = figures(gather(comparison))["Loss"][0].plot
    crosses = [line for line in loss.data if line.marker.symbol == "x"]
    assert [line.x for line in crosses] == [(24,)]
    assert "diverged at 25" in crosses[0].text[0]


def test_smoothing_keeps_constants_and_gaps():
    values = np.array([2.0] * 10 + [math.nan] + [2.0] * 200)
    smoothed = smooth(values)
    assert np.flatnonzero(np.isnan(smoothed)).tolist() == [10]
    assert np.allclose(np.delete(smoothed, 10), 2.0)


def test_smoothing_is_centred():
    assert np.allclose(smooth(np.arange(100.0))[5:-5], np.arange(5.0, 95.0))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_smoothing_of_very_short_curves(size):
    assert np.allclose(smooth(np.ones(size)), np.ones(size))


def test_thinning_keeps_the_spikes():
    values = np.sin(np.arange(100_000) / 1000)
    values[51_234] = 50.0
    values[71_234] = math.nan
    steps, kept = thin((np.arange(values.size), values))
    assert kept.size <= MAX_POINTS
    assert 50.0 in kept
    assert 71_234 in steps
    assert (np.diff(steps) > 0).all()
    assert (steps[0], steps[-1]) == (0, 99_999)


VARIANCE = "gradient_variance/free/head"


@pytest.mark.parametrize("outside", [-1e-9, 0.0])
def test_what_has_no_place_on_a_logarithmic_axis_is_a_gap_and_said(outside, make_run, tmp_path):
    rows = [{"step": step, VARIANCE: outside if step == 3 else 1e-8} for step in range(1, 6)]
    record = make_run(rows=rows)
    (figure,) = figures(gather([record]))["Gradient variance"]
    assert (figure.plot.layout.yaxis.type, figure.plot.layout.yaxis.tickformat) == ("log", "~e")
    assert [value is None for value in figure.plot.data[0].y] == [False, False, True, False, False]
    assert "gaps: values that are not above zero" in figure.note
    _, page = report([record], tmp_path)
    assert "gaps: values that are not above zero" in page.text


def test_values_of_which_none_is_above_zero_are_drawn_on_a_linear_axis(make_run):
    record = make_run(rows=[{"step": step, VARIANCE: -1e-8 * step} for step in range(1, 6)])
    (figure,) = figures(gather([record]))["Gradient variance"]
    assert figure.plot.layout.yaxis.type != "log"
    assert None not in figure.plot.data[0].y
    assert not figure.note


def test_a_value_that_is_not_a_number_is_a_gap_and_said(make_run):
    record = make_run(rows=[{"step": step, VARIANCE: "NaN" if step == 3 else 1e-8} for step in range(1, 6)])
    (figure,) = figures(gather([record]))["Gradient variance"]
    assert "gaps: values that are not finite" in figure.note
