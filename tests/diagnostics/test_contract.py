"""What holds for every file in diagnostics/."""

import ast
import inspect
from pathlib import Path

import pytest
import torch
from torch.nn.functional import mse_loss
from torch.utils._python_dispatch import TorchDispatchMode

from spikeless.config import find, names_in
from spikeless.diagnostics import Snapshot

DIAGNOSTICS = pytest.mark.parametrize("name", names_in("diagnostics"))
FORBIDDEN = ("spikeless.models", "spikeless.nn", "spikeless.training", "spikeless.run", "spikeless.monitor")


class NoWaiting(TorchDispatchMode):
    """Fails where the host would wait for the device: `.item()`, `float()`, `bool()`, `.nonzero()`."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waits = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero")
        assert func.overloadpacket.__name__ not in waits, f"the host waits at {func}"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def snapshot() -> Snapshot:
    """A model that is none of ours, after twelve steps."""
    model = torch.nn.Sequential(torch.nn.Embedding(11, 6), torch.nn.Linear(6, 6))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    tokens, targets = torch.randint(11, (4, 8)), torch.randn(4, 8, 6)
    for _ in range(12):
        optimizer.zero_grad()
        mse_loss(model(tokens), targets).backward()
        previous = {name: each.detach().clone() for name, each in model.named_parameters()}
        optimizer.step()
    named = dict(model.named_parameters())
    return Snapshot(
        embedding=model[0].weight.detach(),
        positions=torch.randn(5, 6),
        parameters=named,
        moments={name: optimizer.state[parameter] for name, parameter in named.items()},
        step=12,
        micro_batches=tuple(lambda i=i: mse_loss(model(tokens[i]), targets[i]) for i in range(4)),
        streams=lambda: (x.detach() for x in (model[0](tokens), model(tokens))),
        previous=previous,
        at_start={"tev/mean": 1.0},
    )


@DIAGNOSTICS
def test_it_is_one_documented_function_of_its_files_name(name):
    diagnostic = find("diagnostics", name)
    assert inspect.isfunction(diagnostic)
    assert diagnostic.__name__ == name
    assert list(inspect.signature(diagnostic).parameters) == ["snapshot"]
    assert diagnostic.__doc__.partition("\n")[0].endswith((".", "]."))


@DIAGNOSTICS
def test_it_returns_finite_scalars_on_the_device_without_waiting_for_it(name, snapshot):
    with NoWaiting():
        readings = find("diagnostics", name)(snapshot)
    assert readings
    for key, value in readings.items():
        assert isinstance(value, torch.Tensor)
        assert value.shape == ()
        assert value.dtype == torch.float32
        assert not value.requires_grad
        assert value.isfinite()
        assert key.startswith(("tev/", "gradient_variance/", "update_", "hidden_variance/"))


def test_the_guard_against_waiting_can_fail():
    with pytest.raises(AssertionError, match="the host waits"), NoWaiting():
        float(torch.ones(()) + 1)


@DIAGNOSTICS
def test_it_changes_nothing(name, snapshot):
    before = [p.detach().clone() for p in snapshot.parameters.values()]
    gradients = [p.grad.clone() for p in snapshot.parameters.values()]
    moments = {key: {k: v.clone() for k, v in state.items()} for key, state in snapshot.moments.items()}
    previous = {key: value.clone() for key, value in snapshot.previous.items()}
    random = torch.get_rng_state()
    find("diagnostics", name)(snapshot)
    assert all(torch.equal(snapshot.previous[key], value) for key, value in previous.items())
    for parameter, value, gradient in zip(snapshot.parameters.values(), before, gradients, strict=True):
        assert torch.equal(parameter, value)
        assert torch.equal(parameter.grad, gradient)
    assert all(torch.equal(snapshot.moments[n][k], v) for n, state in moments.items() for k, v in state.items())
    assert torch.equal(torch.get_rng_state(), random)


@DIAGNOSTICS
def test_it_knows_neither_our_models_nor_our_loop(name):
    tree = ast.parse(Path(inspect.getfile(find("diagnostics", name))).read_text())
    imported = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    imported |= {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    assert not [each for each in imported if each.startswith(FORBIDDEN)]
