"""The audit as a whole: from a model to findings, on every kind of target."""

import math

import pytest
import torch

import spikeless
from spikeless.errors import UserError
from spikeless.preflight.checks import run_checks
from spikeless.preflight.measurements import Measurements
from spikeless.preflight.score import score

SMALL = ("model.num_layers=3", "model.width=32", "model.num_heads=4", "model.vocab_size=97", "model.context_length=32")
SMALL += ("data.sequence_length=32",)


def audit(target, *techniques, **options):
    assignments = () if isinstance(target, torch.nn.Module) else SMALL
    return spikeless.audit(target, techniques=techniques, assignments=assignments, **options)


def test_the_papers_shape_has_the_gains_that_were_derived():
    """The other shapes, and the formula: test_theory.py."""
    for techniques, expected in (((), 26), (("scaled_embed",), 0.82), (("embed_norm",), 0.52)):
        found = spikeless.audit("spike_no_more_350m", techniques=techniques, theory_only=True)
        assert found.to_json()["theory"]["first_layer_ffn_gain"] == pytest.approx(expected, rel=0.03)
        assert found.measured.layers == ()


def test_a_materialised_model_agrees_with_its_own_theory():
    settings = ("model.num_layers=24", "model.width=256", "model.num_heads=8", "model.vocab_size=1024")
    settings += ("data.sequence_length=64", "data.tokenizer=bpe:1024")
    options = {"assignments": settings, "sequences": 2, "tokens": 64}
    theory = spikeless.audit("deep_nano", **options, theory_only=True).measured.theory
    measured = spikeless.audit("deep_nano", **options).measured
    both = [
        (t, s)
        for t, s in zip(theory.sub_layers, (s for layer in measured.layers for s in layer.sub_layers), strict=True)
    ]
    assert len(both) == 48
    for predicted, found in both:
        assert found.shortcut.median == pytest.approx(predicted.shortcut, rel=0.15)
    ffn = measured.layers[0].sub_layers[1]
    assert ffn.estimate - 1 == pytest.approx(theory.first_layer_ffn_gain_with_positions, rel=0.15)
    for predicted, found in both:
        if found.kind == "ffn":
            assert found.estimate - 1 == pytest.approx(predicted.gain, rel=0.15)


def test_theory_from_the_weights_is_that_from_the_recipe():
    """The same model as a module, of which only the weights are known."""
    from spikeless.preflight.target import load_target

    target = load_target("gpt2_nano", assignments=("model.vocab_size=500",))
    of_recipe = spikeless.audit("gpt2_nano", assignments=("model.vocab_size=500",), tokens=32).measured.theory
    of_module = spikeless.audit(target.model, torch.randint(500, (2, 33))).measured.theory
    assert of_module.first_layer_ffn_gain == pytest.approx(of_recipe.first_layer_ffn_gain, rel=0.03)
    assert of_module.log_gain == pytest.approx(of_recipe.log_gain, rel=0.03)


@pytest.mark.parametrize("recipe", ["gpt2_nano", "llama_nano", "deep_nano"])
def test_a_recipe_is_measured_in_three_columns(recipe):
    found = audit(recipe, tokens=24)
    measured = found.measured
    assert found.verdict in ("pass", "warn")
    assert measured.model.state == "initial"
    assert len(measured.layers) == 3
    for layer in measured.layers:
        assert layer.form == "pre-norm"
        assert layer.gradient_norm > 0
        assert [each.kind for each in layer.sub_layers] == ["attention", "ffn"]
        for each in layer.sub_layers:
            assert 1 < each.measured <= each.bound
            assert 1 < each.estimate < 2 * each.bound
            assert each.shortcut.min <= each.shortcut.median
            for matrix in each.matrices:
                assert matrix.spectral_norm == pytest.approx(matrix.gaussian, rel=0.35)
    assert measured.logits.loss == pytest.approx(math.log(97), abs=0.5)
    assert found.score == pytest.approx(math.log10(measured.learning_rate.feature_change))
    assert measured.learning_rate.critical > 0
    assert measured.decayed_roles


def test_suggestions_are_computed():
    found = spikeless.audit("spike_no_more_350m", theory_only=True)
    (finding,) = [each for each in found.findings if each.code == "first-layer-gain"]
    assert finding.severity == "warn"
    after = {each.technique: (each.before, each.after) for each in finding.suggestions}
    assert after["scaled_embed"] == pytest.approx((26.3, 0.82), rel=0.01)
    assert after["embed_norm"] == pytest.approx((26.3, 0.52), rel=0.01)
    treated = spikeless.audit("spike_no_more_350m", techniques=["scaled_embed"], theory_only=True)
    assert treated.measured.theory.first_layer_ffn_gain == pytest.approx(after["scaled_embed"][1])
    assert not any(each.code == "first-layer-gain" and each.severity == "warn" for each in treated.findings)


@pytest.mark.parametrize("family", ["gpt2", "gpt-neox", "gemma2", "opt, post-norm", "mixtral"])
def test_a_model_of_transformers(family, make_family):
    found = spikeless.audit(make_family(family), torch.randint(97, (2, 25)))
    assert found.verdict != "fail"
    assert found.score is not None
    assert len(found.measured.layers) == 3
    assert all(each.measured for layer in found.measured.layers for each in layer.sub_layers)


def test_not_a_number_is_a_finding_and_no_crash(make_family):
    model = make_family("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = math.nan
    found = spikeless.audit(model, torch.randint(97, (2, 25)))
    assert found.verdict == "fail"
    assert found.score is None
    assert any(
        "model.layers.1.mlp.up_proj.weight" in f.where + f.message for f in found.findings if f.severity == "fail"
    )
    found.to_json()


def test_the_same_audit_gives_the_same_numbers():
    one, two = audit("gpt2_nano", tokens=24).to_json(), audit("gpt2_nano", tokens=24).to_json()
    for each in (one, two):
        each.pop("seconds")
    assert one == two


def test_a_bf16_model_is_measured_in_fp32_and_left_alone(make_family):
    model = make_family("gpt2").bfloat16()
    found = spikeless.audit(model, torch.randint(97, (2, 25)))
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())
    like = spikeless.audit(make_family("gpt2"), torch.randint(97, (2, 25)))
    assert found.measured.tev.mean == pytest.approx(like.measured.tev.mean, rel=1e-3)


def test_a_learning_rate_range_is_swept_and_weights_are_put_back(make_family):
    model = make_family("gpt2")
    before = {name: each.clone() for name, each in model.state_dict().items()}
    found = spikeless.audit(model, torch.randint(97, (2, 25)), range_steps=6, lr=1e-3).measured.learning_rate
    assert len(found.range_lrs) == len(found.range_losses) <= 6
    assert found.lr == 1e-3
    assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (torch.rand(2, 9), "token ids"),
        (torch.zeros(9, dtype=torch.long), "token ids"),
        (torch.full((2, 9), 97), "97 rows"),
        (torch.full((2, 9), -1), "97 rows"),
    ],
)
def test_a_batch_that_does_not_fit(batch, words, make_family):
    with pytest.raises(UserError, match=words):
        spikeless.audit(make_family("gpt2"), batch)


def test_checks_say_nothing_of_what_was_not_measured(make_family):
    model = spikeless.audit(make_family("gpt2"), torch.randint(97, (2, 25))).measured.model
    assert run_checks(Measurements(model=model)) == []
    assert score(Measurements(model=model)) is None
