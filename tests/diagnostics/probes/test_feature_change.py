"""The change of the features per unit of learning rate against a derivative in float64."""

import pytest
import torch

from spikeless.diagnostics.anatomy import dissect
from spikeless.diagnostics.anatomy.language_model import LanguageModel
from spikeless.diagnostics.probes.feature_change import feature_change


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_it_is_the_derivative_along_the_update(scale, tiny_run, build):
    model = build(tiny_run("gpt2", num_layers=2)).double()
    anatomy, ids = dissect(LanguageModel(model)), torch.randint(97, (2, 16))
    parameters = dict(model.named_parameters())
    update = {name: scale * torch.randn_like(each) for name, each in parameters.items()}
    before = {name: each.detach().clone() for name, each in parameters.items()}

    def features(values):
        stream = []
        handle = model.blocks[-1].register_forward_hook(lambda _, __, out: stream.append(out))
        torch.func.functional_call(model, values, (ids,))
        handle.remove()
        rows = stream[0].flatten(0, 1)
        rows = rows - rows.mean(1, keepdim=True)
        return rows / rows.std(1, correction=0, keepdim=True)

    step = 1e-7 / scale
    moved = features({name: each - step * update[name] for name, each in before.items()})
    back = features({name: each + step * update[name] for name, each in before.items()})
    derivative = ((moved - back) / (2 * step)).square().mean().sqrt()
    found = feature_change(anatomy, ids, parameters, update)
    assert found == pytest.approx(float(derivative), rel=0.05)
    assert all(torch.equal(before[name], each) for name, each in parameters.items())


def test_an_update_that_moves_nothing(tiny_run, build):
    model = build(tiny_run("llama"))
    parameters = dict(model.named_parameters())
    update = {name: torch.zeros_like(each) for name, each in parameters.items()}
    assert feature_change(dissect(LanguageModel(model)), torch.randint(97, (1, 8)), parameters, update) == 0.0
