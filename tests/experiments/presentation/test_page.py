import dataclasses
import json
import math
import re

import pytest

from spikeless.experiments.analysis.remarks import not_helping, warnings
from spikeless.experiments.presentation.figures import lines, sections
from spikeless.experiments.presentation.page import write_comparison_page

INF = math.inf


@pytest.fixture
def page(tmp_path):
    """Writes a comparison; gives the HTML without scripts, and the figures."""

    def write(comparison):
        write_comparison_page(comparison, tmp_path / "report.html")
        html = (tmp_path / "report.html").read_text(encoding="utf-8")
        plots = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.DOTALL)[1]
        return re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL), json.loads(plots, parse_constant=pytest.fail)

    return write


def words_of(html):
    text = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)
    text = re.sub(r"<.*?>", " ", text.replace("<wbr>", "").replace("<b>", "").replace("</b>", ""))
    text = (
        text.replace("&#39;", "'").replace("&#34;", '"').replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")
    )
    return " ".join(text.split())


def titles(comparison):
    return [each.title for figures in sections(comparison).values() for each in figures]


def figure_of(comparison, title):
    [plot] = [each.plot for figures in sections(comparison).values() for each in figures if each.title == title]
    return plot


def line_of(plot, arm, **wanted):
    """An arm's median, in a figure of a comparison whose arms are in this order."""
    [line] = [each for each in plot.data if each.meta["arm"] == arm and each.name]
    return line


def crosses_of(plot):
    return [each for each in plot.data if each.marker.symbol == "x"]


def bands_of(plot):
    return [each for each in plot.data if each.fill]


# --- the page ---


def test_every_comparison_has_a_page_and_its_figures_are_drawn(any_comparison, page):
    html, plots = page(any_comparison)
    assert len(plots) == html.count('class="plot"') == len(titles(any_comparison))
    assert not re.search(r"\b(nan|inf|None)\b", words_of(html))
    for plot in plots:
        for axis in ("xaxis", "yaxis"):
            assert re.search(r"\S+ \[.+\]$", plot["layout"][axis]["title"]["text"])
            kept = [each for line in plot["data"] for each in line[axis[0]] if isinstance(each, int | float)]
            assert kept
            assert plot["layout"][axis].get("type") != "log" or min(kept) > 0
        for line in plot["data"]:
            assert len(line["x"]) == len(line["y"])
            assert line["meta"]["arm"] in range(len(any_comparison.arms))
    text = words_of(html)
    for each in warnings(any_comparison):
        assert f"{each}." in text
    for each in not_helping(any_comparison):
        assert each.partition(": ")[2] in text


def test_nothing_is_fetched(comparisons, page):
    html, _ = page(comparisons["whole"]())
    links = re.findall(r'(?:src|href|action|srcset)="(.*?)"', html)
    assert all(each.startswith(("#", "data:,")) for each in links)
    assert all(f'id="{each[1:]}"' in html for each in links if each.startswith("#"))
    assert "default-src 'none'" in html
    assert "url(" not in html and "@import" not in html


def test_names_are_escaped(comparisons, page):
    html, plots = page(comparisons["markup"]())
    assert "[red]<b>(x" not in html
    assert "[red]<b>(x=1)+a/b" in words_of(html.replace("<wbr>", ""))
    names = {line.get("name", "") for plot in plots for line in plot["data"]}
    assert any("&lt;b&gt;" in each for each in names) and not any("<b>" in each for each in names)


def test_the_page_in_words(comparisons, page):
    whole = dataclasses.replace(
        comparisons["whole"](),
        about=dataclasses.replace(
            comparisons["whole"]().about,
            changes={"baseline": (), "mlra": ("model.attention.projection: Dense -> MLRA",)},
            settings=("evaluation.every=0",),
            jobs=2,
        ),
    )
    text = words_of(page(whole)[0])
    for part in (
        "Comparison on deep_nano 2 arms × 3 learning rates × 3 seeds on deep_nano: 18 runs of 40 steps, 3 failed.",
        "spikeless compare deep_nano",
        "mlra 9 runs 0.1 3.5000 ±0.2484 3 seeds 33.1 25.8 to 42.5 -0.1000 p 0.25 -0.1000 p 0.25 ≥1 ≥10× 0.267",
        "baseline 9 runs, 3 failed 0.1 3.6000 ±0.2484 3 seeds",
        "mlra 4.3000 4.1000 to 4.3000 +0.1000 p 0.25 3.5000 3.4000 to 3.6000 -0.1000 p 0.25 3.5000",
        "3.4500 to 3.5500 baseline failed p 0.25",
        "3.6000 3.5000 to 3.7000 failed 3 of 3 failed ■ mlra",
        "mlra 9, score 0.25 all runs: 27, score 0.25",
        "mlra 1,000 6k 101 100 to 102 1.00× 1.00 to 1.00, 6 pairs 1 MB 1.00× 1.00 to 1.00, 6 pairs",
        "model.attention.projection: Dense -> MLRA",
        "Nothing: the recipe deep_nano with the settings of all arms.",
        "Where it did not help mlra loss not lower than the baseline's at learning rate 0.01 (+0.100 nats)",
        "gradient variance, all parameters",
        "baseline-lr1-2x64-seed0: unhealthy at step 40: the loss is not finite",
        "settings of all arms evaluation.every=0",
        "torch 2.9",
        "2 runs at a time on this machine",
        "within 0.2 nats of the arm's best",
        "Paired test The same seed gives both arms the same data",
    ):
        assert part in text, part
    assert "Scores" not in text and "not ended" not in text


def test_what_there_is_only_sometimes(comparisons, page):
    whole = comparisons["whole"]()
    scored = tuple(dataclasses.replace(run, scores={"lambada_accuracy": 0.25}) for run in whole.outcomes)
    text = words_of(page(dataclasses.replace(whole, outcomes=scored))[0])
    assert "Scores arm LAMBADA accuracy ● baseline 0.2500 ±0.0000, n 3" in text
    partial = words_of(page(comparisons["partial"]())[0])
    assert "Runs that have not ended mlra-lr0.1-2x64-seed0" in partial.replace(
        "baseline-lr0.1-2x64-seed1: running at step 40 ", ""
    )
    assert "Runs that failed" not in partial and "Runs that failed" in text
    bare = words_of(page(comparisons["no readings"]())[0])
    assert "stand in" not in bare and "TEV at the end" not in bare and "stand in" in text


def test_each_arms_best_loss_is_bold(comparisons, page):
    html, _ = page(comparisons["whole"]())
    assert re.findall(r"<b>(\d.*?)</b>", html) == ["3.6000", "3.5000", "3.5000"]


def test_shapes_have_a_table_each_and_figures_over_depth(comparisons, page):
    text = words_of(page(comparisons["depths"]())[0])
    assert text.count("2 layers × 64 arm") == text.count("4 layers × 64 arm") > 3
    assert "2 layers × 64 arm" not in words_of(page(comparisons["whole"]())[0])


def test_one_legend_for_many_arms(comparisons, page):
    html, _ = page(comparisons["whole"]())
    assert html.count('class="legend"') == 1 and html.count("<button") == 2
    assert "<button" not in page(comparisons["one arm"]())[0]


# --- the figures ---


def test_a_figure_is_there_if_its_numbers_are(comparisons):
    everything = [
        "Final validation loss",
        "Largest stable learning rate",
        "Training loss at each arm's best learning rate",
        "Training loss at the largest learning rate 1",
        "Largest gradient norm",
        "Largest update norm",
        "Spike score of the loss",
        "Spike score of the gradient norm",
        "Raw TEV, μ",
        "Effective TEV, μ",
        "Relative TEV",
        "At the last reading",
        "Before the first step",
        "Gradient variance against raw TEV",
        "Gradient variance against effective TEV",
        "Final loss against effective TEV",
        "Final loss against gradient variance",
    ]
    assert titles(comparisons["whole"]()) == everything
    assert titles(comparisons["no readings"]()) == everything[:2]
    assert titles(comparisons["planned"]()) == titles(comparisons["nothing"]()) == []


def test_the_loss_against_the_learning_rate(comparisons):
    plot = figure_of(comparisons["whole"](), "Final validation loss")
    baseline, mlra = line_of(plot, 0), line_of(plot, 1)
    assert (baseline.x, baseline.y) == ((0.01, 0.1, 1.0), (4.1, 3.6, None))
    assert (mlra.x, mlra.y) == ((0.01, 0.1, 1.0), (4.3, 3.5, 3.5))
    band = next(each for each in bands_of(plot) if each.meta["arm"] == 1)
    assert band.x == (0.01, 0.1, 1.0, 1.0, 0.1, 0.01)
    assert band.y == (4.3, 3.6, 3.55, 3.45, 3.4, 4.1)
    [cross] = crosses_of(plot)
    assert (cross.meta["arm"], cross.x, cross.text) == (0, (1.0,), (" 3/3 ",))
    low, high = plot.layout.yaxis.range
    assert low < 3.4 and 4.3 < cross.y[0] < high


def test_crosses_of_several_arms_do_not_hide_each_other(make_comparison):
    arms = ("baseline", "mlra", "scaled_embed")
    plot = figure_of(
        make_comparison({arm: {0.1: (3.0, 3.1), 1.0: (INF, 4.0)} for arm in arms}), "Final validation loss"
    )
    heights = [each.y[0] for each in crosses_of(plot)]
    assert len(set(heights)) == 3
    assert min(heights) > 4.0 and max(heights) < plot.layout.yaxis.range[1]


def test_a_huge_loss_does_not_flatten_the_others(make_comparison):
    rates = {0.01: (3.0,), 0.1: (2.9,), 0.5: (3.1,), 1.0: (90.0,)}
    plot = figure_of(make_comparison({"baseline": rates}), "Final validation loss")
    assert 3.1 < plot.layout.yaxis.range[1] < 10
    assert line_of(plot, 0).y[-1] == 90


def test_an_arrow_where_the_grid_ends(comparisons):
    plot = figure_of(comparisons["whole"](), "Largest stable learning rate")
    assert [(each.x, each.marker.symbol) for each in plot.data] == [((0.1,), "circle"), ((1.0,), "triangle-right")]
    assert plot.layout.yaxis.ticktext == ("baseline", "mlra")
    none = figure_of(comparisons["baseline failed"](), "Largest stable learning rate").data[0]
    assert (none.mode, none.text) == ("text", ("none",))


def test_curves_are_medians_and_end_where_runs_fail(comparisons, make_comparison):
    plot = figure_of(comparisons["whole"](), "Training loss at the largest learning rate 1")
    assert line_of(plot, 1).y == (7.0, 6.0, 5.0, 4.5, 3.5)
    failed = line_of(plot, 0)
    assert failed.x == (0, 10, 20, 30) and failed.y == (7.0, 6.0, 5.0, 4.5)
    assert [(each.x, each.y) for each in crosses_of(plot)] == [((30,) * 3, (4.5,) * 3)]


def test_a_median_over_runs_of_which_most_failed_has_gaps(make_comparison):
    plot = figure_of(
        make_comparison({"baseline": {0.1: (3.0, 3.1), 1.0: (INF, INF, 3.0)}}),
        "Training loss at the largest learning rate 1",
    )
    y = line_of(plot, 0).y
    assert y[:4] == (7.0, 6.0, 5.0, 4.5) and y[4] is None
    assert bands_of(plot) == [] or max(bands_of(plot)[0].y) <= 7


@pytest.mark.parametrize(("title", "first"), [("At the last reading", 0.2), ("Before the first step", 0.1)])
def test_hidden_variance_over_the_blocks(title, first, comparisons):
    line = line_of(figure_of(comparisons["whole"](), title), 0)
    assert line.x == (0, 1, 2) and line.y == pytest.approx((first, first + 1, first + 2))


def test_one_point_a_run(comparisons):
    plot = figure_of(comparisons["whole"](), "Gradient variance against raw TEV")
    assert [len(each.x) for each in plot.data] == [9, 9]
    steps, seed = (0, 10, 20, 30, 40), 0
    assert plot.data[1].y[0] == pytest.approx(1e-6 * math.prod(1 + seed + step for step in steps) ** 0.2)
    assert plot.data[1].x[0] == pytest.approx(0.1 + 0.01 * 20)
    loss = figure_of(comparisons["whole"](), "Final loss against effective TEV")
    assert [len(each.x) for each in loss.data] == [6, 9], "a run that failed has no final loss"


def test_figures_over_depth(comparisons):
    drawn = sections(comparisons["depths"]())["Depth"]
    assert [each.title for each in drawn] == [
        "Final validation loss",
        "Difference to baseline",
        "Raw TEV, μ, at the end",
        "Raw TEV, σ, at the end",
        "Largest stable learning rate",
    ]
    loss, difference, *_, stable = (each.plot for each in drawn)
    assert (line_of(loss, 1).x, line_of(loss, 1).y) == ((2, 4), (3.5, 3.6))
    assert [each.meta["arm"] for each in difference.data if each.name] == [1]
    assert line_of(difference, 1).y == pytest.approx((-0.1, 0.0))
    assert (line_of(stable, 1).y, line_of(stable, 1).marker.symbol) == ((1.0, 0.1), ("triangle-up", "square"))
    assert "Depth" not in sections(comparisons["whole"]()) and "Width" not in sections(comparisons["depths"]())


def test_differences_over_depth_are_those_at_each_arms_own_rate(make_comparison):
    baseline, mlra = {0.1: (3.0, 3.1), 1.0: (4.0, 4.1)}, {0.1: (4.0, 4.1), 1.0: (2.5, 2.6)}
    grid = {(arm, depth): rates for depth in (2, 4) for arm, rates in (("baseline", baseline), ("mlra", mlra))}
    assert line_of(figure_of(make_comparison(grid), "Difference to baseline"), 1).y == pytest.approx((-0.5, -0.5))


def test_arms_keep_their_look(comparisons):
    looks = lines(comparisons["whole"]())
    assert [each.name for each in looks] == ["baseline", "mlra"]
    for figures in sections(comparisons["whole"]()).values():
        for line in (line for each in figures for line in each.plot.data):
            assert line.meta["color"] == looks[line.meta["arm"]].color


def test_the_page_says_how_much_dearer_the_exact_variance_is(comparisons, page):
    whole = comparisons["whole"]()
    timed = dataclasses.replace(whole.about, reading_seconds={"tev": 0.002, "gradient_variance_exact": 0.25})
    assert "takes 125 times as long" in words_of(page(dataclasses.replace(whole, about=timed))[0])
    assert "times as long" not in words_of(page(whole)[0])
