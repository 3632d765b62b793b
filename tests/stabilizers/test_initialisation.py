"""What the initialisation techniques claim, measured on drawn models."""

import math

import pytest

FAMILIES = pytest.mark.parametrize("family", ["gpt2", "llama"])
WRITES = ("attention.out", "ffn.down")


def std(model, name: str) -> float:
    return model.get_submodule(f"blocks.0.{name}").weight.std().item()


@FAMILIES
@pytest.mark.parametrize(("technique", "base"), [("small_init", math.sqrt(2 / (5 * 64))), ("gpt2_init", 0.02)])
@pytest.mark.parametrize("layers", [1, 8])
def test_matrices_that_write_to_the_residual_stream_shrink_with_depth(family, technique, base, layers, tiny_run, build):
    model = build(tiny_run(family, technique, width=64, num_layers=layers))
    assert model.embedding.weight.std().item() == pytest.approx(base, rel=0.05)
    for name in ("attention.query", "attention.key", "attention.value", "ffn.up"):
        assert std(model, name) == pytest.approx(base, rel=0.06)
    for name in WRITES:
        assert std(model, name) == pytest.approx(base / math.sqrt(2 * layers), rel=0.06)


@FAMILIES
def test_xavier_is_its_formula(family, tiny_run, build):
    model = build(tiny_run(family, "xavier_init", width=64))
    assert model.embedding.weight.std().item() == pytest.approx(math.sqrt(2 / (97 + 64)), rel=0.05)
    assert std(model, "attention.out") == pytest.approx(math.sqrt(2 / (64 + 64)), rel=0.05)
    inner = model.blocks[0].ffn.up.out_features
    assert std(model, "ffn.up") == pytest.approx(math.sqrt(2 / (64 + inner)), rel=0.05)


@FAMILIES
@pytest.mark.parametrize("name", WRITES)
def test_xavier_breaks_condition_one(family, name, tiny_run, build):
    """Its sub-layers do not get smaller in a deeper model, those of the vanilla init do."""
    xavier = [std(build(tiny_run(family, "xavier_init", num_layers=layers)), name) for layers in (1, 16)]
    vanilla = [std(build(tiny_run(family, "small_init", num_layers=layers)), name) for layers in (1, 16)]
    assert xavier[0] == pytest.approx(xavier[1])
    assert vanilla[0] / vanilla[1] == pytest.approx(4.0)


@FAMILIES
def test_xavier_meets_condition_two_no_more_than_vanilla_does(family, tiny_run, build):
    for technique in ("xavier_init", "small_init"):
        assert build(tiny_run(family, technique, width=128)).embedding.weight.std().item() < 0.15
