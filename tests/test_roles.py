import pytest
import torch

from spikeless.config import find, names_in, replace_at
from spikeless.nn.transformer import Transformer
from spikeless.roles import Role, role_of
from spikeless.stabilizers import apply


@pytest.mark.parametrize("technique", [None, *names_in("stabilizers")])
@pytest.mark.parametrize("recipe", names_in("recipes"))
def test_every_parameter_of_every_model_has_a_role(recipe, technique):
    """And it is the role of a matrix exactly if the parameter is one: initialisation and decay rely on it."""
    run = find("recipes", recipe)()
    run = replace_at(run, {"model.vocab_size": run.model.vocab_size or 2048, "model.num_layers": 2})
    run = apply(run, [technique]) if technique else run
    with torch.device("meta"):
        model = Transformer(run.model)
    for name, parameter in model.named_parameters():
        assert role_of(name).is_matrix == (parameter.ndim == 2), name


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("embedding.weight", Role.TOKEN_EMBEDDING),
        ("embedding.norm.weight", Role.NORM),
        ("embedding.norm.bias", Role.NORM),
        ("positions.weight", Role.POSITION_EMBEDDING),
        ("blocks.0.attention_norm.weight", Role.NORM),
        ("blocks.11.ffn_norm.bias", Role.NORM),
        ("blocks.0.attention.query.weight", Role.QUERY),
        ("blocks.0.attention.query.down.weight", Role.QUERY),
        ("blocks.0.attention.query.bias", Role.BIAS),
        ("blocks.0.attention.key.up.weight", Role.KEY),
        ("blocks.0.attention.value.weight", Role.VALUE),
        ("blocks.0.attention.out.weight", Role.ATTENTION_OUT),
        ("blocks.0.attention.out.bias", Role.BIAS),
        ("blocks.0.ffn.up.weight", Role.FFN_UP),
        ("blocks.0.ffn.gate.weight", Role.FFN_GATE),
        ("blocks.0.ffn.down.weight", Role.FFN_DOWN),
        ("blocks.0.ffn.down.bias", Role.BIAS),
        ("final_norm.weight", Role.NORM),
        ("head.weight", Role.HEAD),
    ],
)
def test_role_of(name, role):
    assert role_of(name) is role


@pytest.mark.parametrize("name", ["adapter.weight", "blocks.0.router.weight", "my.embedding.weight", "head.weight.x"])
def test_an_unknown_parameter_is_refused(name):
    with pytest.raises(KeyError, match=name):
        role_of(name)


def test_what_writes_to_the_residual_stream():
    assert {role for role in Role if role.writes_residual} == {Role.ATTENTION_OUT, Role.FFN_DOWN}
