"""Grids of a blink."""

import dataclasses
import json
import math
import signal

import pytest

from spikeless.config import replace_at
from spikeless.experiments.analysis.comparison import About, Comparison
from spikeless.experiments.analysis.outcome import Curve, Outcome, SpikeCount
from spikeless.experiments.task import Event
from spikeless.run import RunConfig


@pytest.fixture(scope="session", autouse=True)
def _one_core():
    """A small model gains nothing from threads, and on a busy machine they wait for each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.sched_getaffinity", lambda _: {0})
        yield


@pytest.fixture(scope="session")
def small_run(tiny_run, tmp_path_factory) -> RunConfig:
    """Three steps on a few sentences."""
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(10):
        (folder / f"{number}.txt").write_text(
            f"note {number}: the cat sat on the mat, and the dog lay on the rug. " * 8
        )
    changes = {"data.spec": f"text:{folder}/*.txt", "data.tokenizer": "bytes", "model.vocab_size": None, "steps": 3}
    changes |= {"data.batch_size": 4, "evaluation.tokens": 64, "precision": "fp32", "schedule.warmup_steps": 1}
    return replace_at(tiny_run("gpt2"), changes | {"checkpoint.every": 1})


class Watch:
    """Remembers what it is told; `do` is called with each event."""

    def __init__(self, do=lambda event: None) -> None:
        self.events: list[Event] = []
        self.kept, self.todo, self.scored, self._do = [], [], [], do
        self.stopped_by = None

    def begin(self, cells, kept, pace) -> None:
        self.todo, self.kept = [cell.folder.name for cell in cells], [cell.folder.name for cell in kept]

    def begin_scoring(self, cells) -> None:
        self.scored = [cell.folder.name for cell in cells]

    def tell(self, event: Event) -> None:
        self.events.append(event)
        self._do(event)

    def interrupted(self, signal_name) -> None:
        self.stopped_by = signal_name


@pytest.fixture
def watching():
    """Makes a watch: `watching(do)`."""
    return Watch


def sigterm() -> None:
    """SIGTERM to this process, which must be ready for it."""
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL, "nobody listens: it would end the tests"
    signal.raise_signal(signal.SIGTERM)


@pytest.fixture(name="sigterm")
def _sigterm():
    return sigterm


@pytest.fixture
def rows():
    """The metrics of a run folder."""
    return lambda folder: [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def timeless():
    """Outcomes without what a clock or the machine decides."""
    measured = {"tokens_per_second": None, "peak_memory": None, "seconds": None}
    return lambda outcomes: [dataclasses.replace(each, **measured) for each in outcomes]


# --- comparisons that nobody trained ---


def made_comparison(losses, *, readings=True, **about) -> Comparison:
    """A comparison of {arm: {lr: losses by seed}}, or of {(arm, depth): …}; infinite has failed, None is running."""
    outcomes = []
    for key, rates in losses.items():
        arm, depth = key if isinstance(key, tuple) else (key, 2)
        for lr, finals in rates.items():
            for seed, final in enumerate(finals):
                name = f"{arm}-lr{lr:g}-{depth}x64-seed{seed}"
                place = {"arm": arm, "lr": lr, "depth": depth, "width": 64, "seed": seed, "run": name}
                outcomes.append(made_outcome(place, final, readings))
    given = {"recipe": "deep_nano", "data": "text:a.txt", "tokenizer": "bytes", "vocab_size": 257, "steps": 40}
    given |= {"tokens_per_step": 512, "precision": "fp32", "environment": {"torch": "2.9"}} | about
    return Comparison(about=About(**given), outcomes=tuple(outcomes))


def made_outcome(place, final, readings) -> Outcome:
    """A run with this final loss and, if wanted, with readings that follow from its place."""
    failed = final == math.inf
    place |= {"state": "running" if final is None else "unhealthy" if failed else "finished", "final_val_loss": final}
    place |= {"message": "the loss is not finite" if failed else "", "initial_val_loss": 7.0, "steps": 40}
    if not readings:
        return Outcome(**place)
    lr, depth, seed = place["lr"], place["depth"], place["seed"]
    steps = (0, 10, 20, 30, 40)
    end = math.nan if failed else final or 4.0
    values = {"loss": (7.0, 6.0, 5.0, 4.5, end), "grad_norm": (1.0, 2.0, 1.0, 1.0, 1.0), "update_norm": (lr,) * 5}
    values |= {"tev/mean": tuple(0.1 + lr * step for step in steps), "tev/std": (0.01,) * 5}
    values |= {"tev/effective_mean": tuple(0.2 + seed * step for step in steps), "tev/relative": (1, 1, 2, 2, 3)}
    values |= {"gradient_variance/exact/all": tuple(1e-6 * (1 + seed + step) for step in steps)}
    values |= {f"hidden_variance/{block:03d}": (0.1 + block, 1, 1, 1, 0.2 + block) for block in range(depth + 1)}
    values |= {"hidden_variance/growth": ((0.1 + depth) / 0.1,) * 5}
    spikes = SpikeCount(score=0.25, count=2 + seed, window=10, width=6.0)
    return Outcome(
        **place,
        parameters=1000,
        flops_per_token=6000.0,
        tokens_per_second=100.0 + seed,
        peak_memory=1_000_000,
        diverged_at=33 if failed else None,
        max_grad_norm=math.inf if failed else 10 * lr + seed,
        max_update_norm=lr,
        spikes={"loss": spikes, "grad_norm": spikes},
        curves={key: Curve(steps=steps, values=each) for key, each in values.items()},
    )


INF = math.inf
BASELINE = {0.01: (4.0, 4.2, 4.1), 0.1: (3.5, 3.7, 3.6), 1.0: (INF, INF, INF)}
TREATED = {0.01: (4.1, 4.3, 4.3), 0.1: (3.4, 3.6, 3.5), 1.0: (3.45, 3.5, 3.55)}
BROKEN = {0.1: (INF, INF), 1.0: (INF, INF)}
COMPARISONS = {
    "whole": lambda: made_comparison({"baseline": BASELINE, "mlra": TREATED}, command="spikeless compare deep_nano"),
    "nothing": lambda: made_comparison({}),
    "planned": lambda: Comparison(
        about=made_comparison({}).about,
        outcomes=tuple(
            Outcome(arm=arm, lr=0.1, depth=2, width=64, seed=seed, run=f"{arm}{seed}")
            for arm in ("baseline", "mlra")
            for seed in (0, 1)
        ),
    ),
    "running": lambda: made_comparison({"baseline": {0.1: (None, None)}, "mlra": {0.1: (None,)}}),
    "partial": lambda: made_comparison({"baseline": {0.1: (3.5, None)}, "mlra": {0.1: (None, 3.4), 1.0: (3.3,)}}),
    "all failed": lambda: made_comparison({"baseline": BROKEN, "mlra": BROKEN}),
    "baseline failed": lambda: made_comparison({"baseline": BROKEN, "mlra": {0.1: (3.0, INF), 1.0: (3.0, 3.1)}}),
    "technique failed": lambda: made_comparison({"baseline": {0.1: (3.0, 3.1), 1.0: (3.0, INF)}, "mlra": BROKEN}),
    "half failed": lambda: made_comparison({"baseline": {0.1: (3.0, INF)}, "mlra": {0.1: (INF, 3.0)}}),
    "no readings": lambda: made_comparison({"baseline": BASELINE, "mlra": TREATED}, readings=False),
    "one seed": lambda: made_comparison({"baseline": {0.1: (3.5,), 1.0: (3.6,)}, "mlra": {0.1: (3.4,), 1.0: (3.6,)}}),
    "one rate": lambda: made_comparison({"baseline": {0.1: (3.5, 3.6)}, "mlra": {0.1: (3.4, 3.5)}}),
    "one run": lambda: made_comparison({"baseline": {0.1: (3.5,)}}),
    "no baseline": lambda: made_comparison({"mlra": BASELINE, "scaled_embed": TREATED}),
    "one arm": lambda: made_comparison({"mlra": TREATED}),
    "depths": lambda: made_comparison(
        {("baseline", 2): BASELINE, ("mlra", 2): TREATED, ("baseline", 4): BASELINE, ("mlra", 4): BASELINE}
    ),
    "an arm at one depth": lambda: made_comparison(
        {("baseline", 2): BASELINE, ("mlra", 4): TREATED, ("scaled_embed", 2): TREATED}
    ),
    "markup": lambda: made_comparison({"baseline": BASELINE, "lab:[red]<b>(x=1)+a/b": TREATED}),
}


@pytest.fixture(params=COMPARISONS)
def any_comparison(request) -> Comparison:
    """Whole, partial, failed, small and empty ones."""
    return COMPARISONS[request.param]()


@pytest.fixture
def comparisons():
    """Those of `any_comparison`, by name."""
    return COMPARISONS


@pytest.fixture
def make_comparison():
    """Makes a comparison; see `made_comparison`."""
    return made_comparison
