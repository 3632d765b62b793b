import pytest
import torch

from spikeless.config import find, names_in, replace_at
from spikeless.nn.transformer import Transformer

RECIPES = pytest.mark.parametrize("name", names_in("recipes"))
EXACT = {
    "gpt2_124m": 124_439_808,
    "gpt2_355m": 354_823_168,
    "gpt2_774m": 774_030_080,
    "gpt2_1558m": 1_557_611_200,
    "llama_7b": 6_738_415_616,
}
NAMED = {
    "llama_160m": 162e6,
    "llama_1b": 1.0e9,
    "spike_no_more_350m": 350e6,
    "spike_no_more_1p7b": 1.7e9,
    "spike_no_more_13b": 13e9,
}


def parameters(name: str) -> int:
    model = find("recipes", name)().model
    with torch.device("meta"):
        return sum(
            p.numel() for p in Transformer(replace_at(model, {"vocab_size": model.vocab_size or 2048})).parameters()
        )


@RECIPES
def test_a_recipe_is_a_documented_function_of_its_name(name):
    recipe = find("recipes", name)
    assert recipe.__name__ == name
    assert recipe().recipe == name
    assert recipe.__doc__.endswith(".")


@RECIPES
def test_a_recipe_passes_its_own_check(name):
    find("recipes", name)().check()


@RECIPES
def test_a_recipe_is_the_same_every_time_and_names_no_technique(name):
    assert find("recipes", name)() == find("recipes", name)()
    assert find("recipes", name)().techniques == ()


@RECIPES
def test_the_tokenizer_fits_the_vocabulary(name):
    run = find("recipes", name)()
    kind, _, size = run.data.tokenizer.partition(":")
    assert run.model.vocab_size in (None, int(size))
    assert kind == "bpe"


@RECIPES
def test_the_warm_up_ends_before_the_run(name):
    run = find("recipes", name)()
    assert run.schedule.warmup_steps < run.steps / 2


@pytest.mark.parametrize(("name", "count"), EXACT.items())
def test_a_published_shape_has_its_parameter_count(name, count):
    assert parameters(name) == count


@pytest.mark.parametrize(("name", "count"), NAMED.items())
def test_a_shape_is_as_large_as_its_name_says(name, count):
    assert parameters(name) == pytest.approx(count, rel=0.05)


@pytest.mark.parametrize("name", [name for name in names_in("recipes") if "nano" in name])
def test_a_nano_recipe_is_small(name):
    assert parameters(name) < 3e6


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("spike_no_more_350m", (24, 1024, 16)),
        ("spike_no_more_1p7b", (24, 2304, 24)),
        ("spike_no_more_13b", (40, 5120, 40)),
        ("deep_nano", (48, 48, 4)),
    ],
)
def test_the_papers_shapes_start_from_vanilla(name, shape):
    run = find("recipes", name)()
    assert (run.model.num_layers, run.model.width, run.model.num_heads) == shape
    assert type(run.init.scheme).__name__ == "SmallInit"
