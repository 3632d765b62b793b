"""Techniques with their computed effect, on our runs and on stand-ins for other models."""

import math

import pytest

from spikeless import stabilizers
from spikeless.config import find, names_in, replace_at
from spikeless.errors import UserError
from spikeless.preflight.proxy import MeasuredInit, proxy_run
from spikeless.preflight.strengths import strengths_of
from spikeless.preflight.suggest import QUANTITIES, QUANTITY_OF_CODE, suggestions
from spikeless.preflight.theory import theory
from spikeless.roles import Role

ROLES = ("query", "key", "value", "attention_out", "ffn_up", "ffn_down")


def foreign(**changes):
    stds = dict.fromkeys(ROLES, 0.02) | {"token_embedding": 0.02, "position_embedding": 0.01}
    return proxy_run(
        **{
            "num_layers": 3,
            "width": 96,
            "num_heads": 6,
            "num_kv_heads": 2,
            "ffn_width": 200,
            "gated": False,
            "norm": "layernorm",
            "activation": "quick_gelu",
            "vocab_size": 101,
            "tied": True,
            "learned_positions": True,
            "stds": stds,
        }
        | changes
    )


def test_the_papers_cure_with_its_numbers():
    found = suggestions(find("recipes", "spike_no_more_1p7b")(), "first_layer_ffn_gain", 256)
    assert [each.technique for each in found] == ["embed_norm", "embed_std_one", "scaled_embed"]
    assert [each.after for each in found] == pytest.approx([0.52, 0.52, 0.82], rel=0.03)
    assert {each.quantity for each in found} == {"first_layer_ffn_gain"}
    for each in found:
        assert each.before == pytest.approx(39, rel=0.03)
        header = stabilizers.read_header(each.technique)
        assert (each.summary, each.cost) == (header.summary, header.cost)


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_effects_are_those_of_the_treated_run(family, quantity, tiny_run):
    run = tiny_run(family)
    for each in suggestions(run, quantity, 32, at_most=99):
        treated = stabilizers.apply(run, [each.technique])
        assert QUANTITIES[quantity].read(theory(strengths_of(run, 32))) == each.before
        assert QUANTITIES[quantity].read(theory(strengths_of(treated, 32))) == each.after
        assert each.after < each.before


def test_what_the_run_has_and_what_excludes_it_is_left_out(tiny_run):
    run = tiny_run("gpt2", "scaled_embed")
    names = {each.technique for each in suggestions(run, "first_layer_ffn_gain", 32, at_most=99)}
    assert not names & {"scaled_embed", "embed_norm", "embed_std_one"}
    by_hand = replace_at(tiny_run("gpt2"), {"model.embedding.multiplier": math.sqrt(32)})
    assert "scaled_embed" not in {each.technique for each in suggestions(by_hand, "log_gain", 32, at_most=99)}


def test_controls_are_never_suggested(tiny_run):
    run = replace_at(tiny_run("llama"), {"init.scheme": MeasuredInit(stds=dict.fromkeys(Role, 5.0))})
    names = {each.technique for quantity in QUANTITIES for each in suggestions(run, quantity, 32, at_most=99)}
    assert "small_init" in names
    assert not names & {"xavier_init", "dense_scale_matched", "embed_detach"}


def test_at_most_and_nothing_to_do(tiny_run):
    assert len(suggestions(tiny_run("gpt2"), "first_layer_ffn_gain", 32, at_most=1)) == 1
    good = tiny_run("gpt2", "embed_norm", "small_init")
    assert suggestions(good, "residual_growth", 32) == ()


def test_codes_name_quantities():
    assert set(QUANTITY_OF_CODE.values()) <= set(QUANTITIES)


# --- models that are not ours ---


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_stand_in_for_one_of_ours_has_its_theory(family, tiny_run):
    run = tiny_run(family, width=64, num_kv_heads=2)
    stds = {role.value: run.init.std(role, 64, 64, width=64, num_layers=2) for role in Role if role.is_matrix}
    llama = family == "llama"
    stand_in = foreign(
        num_layers=2,
        width=64,
        num_heads=4,
        ffn_width=192 if llama else 256,
        gated=llama,
        norm="rmsnorm" if llama else "layernorm",
        activation="silu" if llama else "gelu_new",
        vocab_size=97,
        learned_positions=not llama,
        stds=stds,
    )
    assert theory(strengths_of(stand_in, 32)) == theory(strengths_of(run, 32))


@pytest.mark.parametrize("form", ["pre-norm", "parallel", "sandwich"])
@pytest.mark.parametrize("changes", [{}, {"query_norm": True, "norm_gain": 0.5}, {"head_width": 24}])
def test_techniques_act_on_a_stand_in(form, changes):
    run = foreign(form=form, **changes)
    found = suggestions(run, "first_layer_ffn_gain", 64, at_most=99)
    assert {"scaled_embed", "embed_norm", "embed_std_one"} <= {each.technique for each in found}
    for name in names_in("stabilizers"):
        assert theory(strengths_of(stabilizers.apply(run, [name]), 64)).sub_layers


def test_form_and_gain_reach_the_theory():
    kinds = {form: [each.kind for each in strengths_of(foreign(form=form), 8).blocks[0]] for form in FORMS}
    assert kinds == FORMS
    assert {each.output_norm for each in strengths_of(foreign(form="sandwich"), 8).blocks[0]} == {1.0}
    half, whole = (theory(strengths_of(foreign(norm_gain=gain), 8)).first_layer_ffn_gain for gain in (0.5, 1.0))
    assert half == pytest.approx(whole / 2)


FORMS = {"pre-norm": ["attention", "ffn"], "parallel": ["parallel"], "sandwich": ["attention", "ffn"]}


@pytest.mark.parametrize(("width", "heads", "kv_heads"), [(90, 7, 1), (64, 6, 2), (1152, 4, 1), (2, 2, 2)])
def test_heads_that_do_not_divide_the_width(width, heads, kv_heads):
    """As in Gemma 3, whose heads are not width / heads wide."""
    run = foreign(width=width, num_heads=heads, num_kv_heads=kv_heads, head_width=32)
    value, out = (strengths_of(run, 8).blocks[0][0].matrices[role] for role in ("value", "attention_out"))
    assert out.variance == pytest.approx(heads * 32 * 0.02**2)
    assert value.std == 0.02


def test_a_std_that_was_not_measured():
    init = MeasuredInit(stds={"value": 0.3, "ffn_up": 0.2})
    assert init.std(Role.QUERY, 4, 4, width=4, num_layers=1) == 0.3
    assert init.std(Role.FFN_GATE, 4, 4, width=4, num_layers=1) == 0.2
    with pytest.raises(UserError, match="no standard deviation is known for ffn_down; measured: ffn_up, value"):
        init.std(Role.FFN_DOWN, 4, 4, width=4, num_layers=1)
