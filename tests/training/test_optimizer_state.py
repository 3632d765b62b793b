"""Whatever an optimizer keeps between steps is saved and restored exactly; nothing is shared with the checkpoint."""

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field

import pytest
import torch

from spikeless.config import replace_at
from spikeless.errors import UserError
from spikeless.training.checkpoints import Checkpoints
from spikeless.training.loop import train
from spikeless.training.optimizer_state import OptimizerState
from spikeless.training.state import TrainState


class Odd(torch.optim.Optimizer):
    """Keeps state of every kind, some of it created late, in groups, attributes and a `state_dict` of its own."""

    def __init__(self, parameters, lr: float) -> None:
        super().__init__(parameters, {"lr": lr, "clock": 0, "limits": (0.1, math.inf), "schedule": math.cos})
        self.counter, self.history, self.mean = 0, deque(maxlen=3), torch.zeros(())
        self.shared = torch.zeros((), dtype=torch.int64)

    def state_dict(self):
        return {**super().state_dict(), "counter": self.counter, "shared": self.shared}

    def load_state_dict(self, state_dict):
        self.counter, self.shared = state_dict["counter"], state_dict["shared"]
        super().load_state_dict(state_dict)

    @torch.no_grad()
    def step(self, closure=None):
        self.counter += 1
        self.history.append(float(self.counter))
        self.mean += 0.5
        self.shared += 16_777_217  # fp32 does not hold it
        for group in self.param_groups:
            group["clock"] += 1
            for number, parameter in enumerate(each for each in group["params"] if each.grad is not None):
                state = self.state[parameter]
                if not state:
                    state.update(
                        mode="fast", started=False, nothing=None, worst=-math.inf, count=0, shape=parameter.shape,
                        nested={"pairs": [(1, torch.zeros(2))], 3: OrderedDict(a=1)}, half=torch.zeros(3).bfloat16(),
                        steps=torch.zeros((), dtype=torch.int64), seen={1, 2}, shared=self.shared, anchor=parameter,
                    )  # fmt: skip
                if self.counter == 3 and number % 2:
                    state["late"] = torch.full_like(parameter, 0.25).t()
                state["count"] += 1
                state["worst"] = max(state["worst"], parameter.grad.abs().max().item())
                state["steps"] += 16_777_217
                state["half"] += 0.01
                state["nested"]["pairs"][0][1].add_(state["count"])
                assert state["anchor"] is parameter
                assert state["shared"] is self.shared
                size = 1 + state["half"][0].float() + state["nested"]["pairs"][0][1][0] / 100 + self.mean / 10
                size = (
                    size + math.log1p(state["count"]) + sum(self.history) / 10 + (state["steps"] % 7) + group["clock"]
                )
                moved = parameter.grad.sign() * size + state.get("late", parameter.t()).t()
                parameter.sub_(group["lr"] * moved)


@dataclass(frozen=True, kw_only=True)
class OddOptimizer:
    lr: float = 1e-3

    def build(self, named_parameters):
        parameters = [parameter for _, parameter in named_parameters]
        return Odd([{"params": parameters[:5]}, {"params": parameters[5:], "clock": 7}], lr=self.lr)


@dataclass(frozen=True, kw_only=True)
class Torchs:
    """One of torch's own, by class."""

    kind: type
    lr: float = 1e-3
    options: dict = field(default_factory=dict)

    def build(self, named_parameters):
        return self.kind([parameter for _, parameter in named_parameters], lr=self.lr, **self.options)


OPTIMIZERS = {
    "odd": OddOptimizer(),
    "sgd": Torchs(kind=torch.optim.SGD),
    "momentum": Torchs(kind=torch.optim.SGD, options={"momentum": 0.9}),
    "adagrad": Torchs(kind=torch.optim.Adagrad),
    "nadam": Torchs(kind=torch.optim.NAdam),
    "asgd": Torchs(kind=torch.optim.ASGD),
    "adamax": Torchs(kind=torch.optim.Adamax),
    "adafactor": Torchs(kind=torch.optim.Adafactor),
}


@pytest.fixture
def state_of(tiny_run, build):
    """Makes a state of a tiny model with an optimizer."""

    def make(optim, seed: int = 0) -> TrainState:
        run = replace_at(tiny_run("gpt2", width=8, num_layers=1), {"optim": optim, "seed": seed})
        model = build(run)
        return TrainState(model, run.optim.build(model.named_parameters()), torch.device("cpu"))

    return make


def go_on(state: TrainState, steps: int) -> dict[str, torch.Tensor]:
    """The parameters after some more steps, copied."""
    for _ in range(steps):
        state.step += 1
        torch.manual_seed(state.step)
        state.model(torch.randint(97, (1, 8))).logsumexp(-1).mean().backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
    return {name: each.detach().clone() for name, each in state.parameters.items()}


def assert_equal(one, other) -> None:
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restored_run_goes_on_as_the_one_that_was_saved(tmp_path, state_of, name):
    """Through the disk into a fresh optimizer, and twice from one checkpoint in memory into one that has stepped on."""
    state = state_of(OPTIMIZERS[name])
    early = state.checkpoint()
    go_on(state, 2)
    saved = state.checkpoint()
    Checkpoints(tmp_path).save(saved)
    expected = go_on(state, 3)
    fresh = state_of(OPTIMIZERS[name], seed=1)
    fresh.restore(Checkpoints(tmp_path).newest())
    assert_equal(go_on(fresh, 3), expected)
    for _ in range(2):
        state.restore(saved)
        assert_equal(go_on(state, 3), expected)
    state.restore(early)  # lazily created state is gone again
    go_on(state, 2)
    assert_equal(go_on(state, 3), expected)


def test_state_keeps_its_types_and_its_identities(tmp_path, state_of):
    state, fresh = state_of(OddOptimizer()), state_of(OddOptimizer())
    go_on(state, 4)
    Checkpoints(tmp_path).save(state.checkpoint())
    fresh.restore(Checkpoints(tmp_path).newest())
    for name, parameter in fresh.parameters.items():
        ours, theirs = fresh.optimizer.state[parameter], state.optimizer.state[state.parameters[name]]
        assert {key: type(value) for key, value in ours.items()} == {key: type(value) for key, value in theirs.items()}
        assert (ours["mode"], ours["seen"], ours["half"].dtype) == ("fast", {1, 2}, torch.bfloat16)
        assert torch.equal(ours["steps"], theirs["steps"])
        assert ours["nested"][3] == OrderedDict(a=1)
    assert fresh.optimizer.history.maxlen == 3
    assert [group["clock"] for group in fresh.optimizer.param_groups] == [4, 11]
    assert fresh.optimizer.param_groups[0]["schedule"] is math.cos


def test_settings_of_the_configuration_win_over_the_checkpoint(state_of):
    """What `build` sets and the optimizer leaves alone is no state: a branch of a run may change it."""
    state = state_of(Torchs(kind=torch.optim.SGD, options={"momentum": 0.9, "weight_decay": 0.1}))
    go_on(state, 2)
    other = state_of(Torchs(kind=torch.optim.SGD, lr=0.5, options={"momentum": 0.5, "weight_decay": 0.0}))
    other.restore(state.checkpoint())
    (group,) = other.optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.5, 0.5, 0.0)
    assert other.optimizer.state[group["params"][0]]["momentum_buffer"].abs().max() > 0


def test_what_cannot_be_saved_is_named(state_of):
    state = state_of(Torchs(kind=torch.optim.SGD))
    parameter = state.parameters["embedding.weight"]
    state.optimizer.state[parameter]["hook"] = {"f": [print]}
    with pytest.raises(
        UserError, match=r"state of SGD cannot be saved: embedding\.weight/hook/f/0 is of type builtin_func"
    ):
        state.checkpoint()


@pytest.mark.parametrize(
    ("optim", "message"),
    [
        (Torchs(kind=torch.optim.LBFGS), "LBFGS computes the loss itself"),
        (Torchs(kind=lambda parameters, lr: 3), "of type int; it must give"),
    ],
)
def test_what_is_no_optimizer_for_this_loop_is_refused(state_of, optim, message):
    with pytest.raises(UserError, match=message):
        state_of(optim)


def test_state_of_another_optimizer_is_refused(state_of):
    saved = state_of(OddOptimizer()).checkpoint()
    saved.state["optimizer"] = {"others": [["a", {"eval": "1"}]]}
    with pytest.raises(UserError, match="not one of Odd"):
        state_of(OddOptimizer()).restore(saved)


def test_groups_keep_their_rates_in_proportion(state_of):
    """Those with a rate of their own; a group with torch's default is one whose rate `build` left to the loop."""
    with_default = Torchs(kind=lambda parameters, lr: torch.optim.SGD([{"params": parameters}]), lr=0.5)
    own = Torchs(
        kind=lambda parameters, lr: torch.optim.SGD(
            [{"params": parameters[:1], "lr": lr / 8}, {"params": parameters[1:2]}, {"params": parameters[2:]}],
            lr=torch.tensor(lr),
        ),
        lr=0.5,
    )
    for optim, expected in ((with_default, [0.25]), (own, [0.25 / 8, 0.25, 0.25])):
        state = state_of(optim)
        state.set_lr(0.25, optim.lr)
        assert [float(group["lr"]) for group in state.optimizer.param_groups] == expected


def test_a_group_with_a_tensor_of_its_own_as_rate_keeps_its_proportion(state_of):
    def build(parameters, lr):
        groups = [{"params": parameters[:1], "lr": torch.tensor(lr / 8)}, {"params": parameters[1:]}]
        return torch.optim.SGD(groups, lr=torch.tensor(0.125))

    state = state_of(Torchs(kind=build, lr=0.5))
    for rate in (0.25, 0.125, 0.5):  # a group with the optimizer's default is left to the loop
        state.set_lr(rate, 0.5)
        assert [float(group["lr"]) for group in state.optimizer.param_groups] == [rate / 8, rate]


def test_what_was_kept_on_the_cpu_stays_there():
    """Also where the tensor's path alone names its parameter and its key."""
    parameter = torch.nn.Parameter(torch.zeros(2, device="meta"))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    optimizer.state[parameter] = {"offloaded": torch.ones(2), "pair": [torch.zeros(2)]}
    state = OptimizerState(optimizer, {"weight": parameter})
    state.load(*state.save())
    restored = optimizer.state[parameter]
    assert torch.equal(restored["offloaded"], torch.ones(2)) and restored["pair"][0].device.type == "cpu"


class Unsavable(torch.optim.SGD):
    def step(self, closure=None):
        self.state[self.param_groups[0]["params"][0]]["object"] = object()
        return super().step(closure)


@dataclass(frozen=True, kw_only=True)
class UnsavableDescent:
    lr: float = 0.1

    def build(self, named_parameters):
        return Unsavable([parameter for _, parameter in named_parameters], lr=self.lr)


def test_state_that_cannot_be_saved_is_said_after_the_first_step(tmp_path, quick_run):
    with pytest.raises(
        UserError, match=r"state of Unsavable cannot be saved: embedding\.weight/object is of type object"
    ):
        train(replace_at(quick_run, {"optim": UnsavableDescent()}), tmp_path)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) <= 2
