"""The numbers that docs/stability.md derives, computed from the recipes."""

import math
import re
from pathlib import Path

import pytest

from spikeless.config import find
from spikeless.nn.projection import product_std
from spikeless.roles import Role

PAGE = (Path(__file__).parents[2] / "docs" / "stability.md").read_text(encoding="utf-8")
RECIPES = pytest.mark.parametrize("recipe", ["spike_no_more_350m", "spike_no_more_1p7b", "spike_no_more_13b"])


def std(recipe: str, role: Role, d_out: int, d_in: int) -> float:
    run = find("recipes", recipe)()
    return run.init.std(role, d_out, d_in, width=run.model.width, num_layers=run.model.num_layers)


@RECIPES
def test_the_factor_of_the_first_layer(recipe):
    """sigma_1 sigma_2 (sqrt(D) + sqrt(4 D))^2 / sigma_x, to the digits that the page gives."""
    row = re.search(rf"^\| `{recipe}` \| (.*) \|$", PAGE, re.MULTILINE)
    layers, width, *shown = row[1].split(" | ")
    model = find("recipes", recipe)().model
    assert (int(layers), int(width)) == (model.num_layers, model.width)
    d = model.width
    product = std(recipe, Role.FFN_UP, 4 * d, d) * std(recipe, Role.FFN_DOWN, d, 4 * d)
    factor = product * (math.sqrt(d) + math.sqrt(4 * d)) ** 2
    vanilla = std(recipe, Role.TOKEN_EMBEDDING, 50257, d)
    exact = [factor / sigma for sigma in (vanilla, vanilla * math.sqrt(d), 1.0)]
    assert [f"{exact[0]:.0f}", *(f"{each:.2f}" for each in exact[1:])] == shown


def test_the_scale_of_a_product_of_factors():
    assert "0.154 of the dense one's" in PAGE
    assert (product_std(0.02, 384) / 0.02) ** 2 == pytest.approx(0.154, abs=5e-4)


def test_the_std_after_the_norm_with_its_epsilon():
    variances = [std(recipe, Role.TOKEN_EMBEDDING, 1, 1) ** 2 for recipe in RECIPES.args[1]]
    after = [math.sqrt(variance / (variance + 1e-5)) for variance in variances]
    assert f"{min(after):.2f} to {max(after):.2f}" in PAGE
