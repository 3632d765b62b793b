"""The size of a step against the parameters before and after it, in float64."""

import pytest
import torch

from spikeless.diagnostics import Snapshot, is_before_step, needs_previous
from spikeless.diagnostics.tev import tev
from spikeless.diagnostics.update_norm import update_norm

NOTHING = torch.zeros(1, 1)


def norm(tensors):
    return torch.cat([each.double().flatten() for each in tensors]).norm().item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_norm_of_the_difference(dtype):
    before = {"a": torch.randn(30, 40, dtype=dtype), "b": torch.randn(7, dtype=dtype)}
    after = {name: torch.nn.Parameter(each + 0.01 * torch.randn_like(each)) for name, each in before.items()}
    after["frozen"] = torch.nn.Parameter(torch.randn(5))  # was not there before: not a part of the step
    readings = update_norm(Snapshot(embedding=NOTHING, parameters=after, previous=before))
    size = norm([after[name].detach().double() - before[name].double() for name in before])
    assert readings.keys() == {"update_norm", "update_ratio"}
    assert readings["update_norm"].item() == pytest.approx(size, rel=1e-6)
    assert readings["update_ratio"].item() == pytest.approx(size / norm(before.values()), rel=1e-6)


def test_without_parameters_from_before_there_are_no_readings():
    assert update_norm(Snapshot(embedding=NOTHING, parameters={"a": torch.nn.Parameter(torch.ones(3))})) == {}


def test_it_is_marked():
    assert needs_previous(update_norm) and not is_before_step(update_norm)
    assert not needs_previous(tev)
