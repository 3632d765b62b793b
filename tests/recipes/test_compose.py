"""A recipe with techniques and assignments: who comes first, and what is refused."""

import itertools

import pytest

from spikeless.config import find, get_at, names_in
from spikeless.errors import UserError
from spikeless.nn.projection import LowRank
from spikeless.optim.gradients.clip_norm import ClipNorm
from spikeless.optim.schedules.wsd import WSD
from spikeless.recipes import compose

GUESSES = {
    "steps": 7,
    "seed": 3,
    "optim.lr": 0.002,
    "optim.weight_decay": 0.05,
    "schedule.warmup_steps": 2,
    "data.batch_size": 4,
    "data.micro_batches": 2,
    "data.sequence_length": 64,
    "checkpoint.every": 3,
    "evaluation.every": 2,
    "metrics.every": 1,
    "model.num_layers": 1,
    "model.width": 64,
    "model.num_heads": 2,
    "model.context_length": 256,
    "model.vocab_size": 300,
    "gradients.0.max_norm": 0.5,
    "loss.chunk_tokens": 64,
    "precision": "fp32",
    "device": "cpu",
    "compile": True,
}


@pytest.mark.parametrize("path", GUESSES)
@pytest.mark.parametrize("recipe", ["gpt2_nano", "llama_nano"])
def test_a_path_that_a_user_would_guess_exists_and_takes_its_value(recipe, path):
    assert get_at(compose(recipe, [], [f"{path}={GUESSES[path]}"]), path) == GUESSES[path]


@pytest.mark.parametrize("name", names_in("recipes"))
def test_with_nothing_it_is_the_recipe(name):
    assert compose(name) == find("recipes", name)()


def test_slots_take_parts_by_name():
    assert compose("gpt2_nano", [], ["schedule=wsd(decay_share=0.5)"]).schedule == WSD(decay_share=0.5)
    assert compose("gpt2_nano", [], ["gradients=none"]).gradients == ()
    assert compose("gpt2_nano", [], ["gradients=clip_norm(max_norm=2)"]).gradients == (ClipNorm(max_norm=2.0),)
    projection = compose("gpt2_nano", [], ["model.attention.projection=LowRank(rank=8)"]).model.attention.projection
    assert projection == LowRank(rank=8)


def test_techniques_see_the_sizes_that_were_asked_for():
    assert compose("gpt2_nano", ["scaled_embed"], ["model.width=64"]).model.embedding.multiplier == 8.0


def test_a_part_that_a_technique_brings_can_be_set():
    run = compose("gpt2_nano", ["mlra"], ["model.attention.projection.rank=8"])
    assert run.model.attention.projection == LowRank(rank=8)
    with pytest.raises(UserError, match="rank"):  # there is none without it
        compose("gpt2_nano", [], ["model.attention.projection.rank=8"])


@pytest.mark.parametrize(
    ("technique", "assignment"),
    [
        ("scaled_embed", "model.embedding.multiplier=3.0"),
        ("scaled_embed", "model.embedding.multiplier=1.0"),
        ("scaled_embed", "model.embedding=TokenEmbedding(multiplier=2)"),
        ("mlra", "model.attention.projection=LowRank(rank=8)"),
        ("xavier_init", "init.scheme=small"),
        ("embed_std_one", "model.tied=true"),
    ],
)
def test_an_assignment_and_a_technique_that_set_one_thing_are_refused(technique, assignment):
    """Also an assignment of the recipe's own value: it was asked for."""
    with pytest.raises(UserError, match=f"{technique} both set {assignment.partition('=')[0]}; choose one"):
        compose("gpt2_nano", [technique], [assignment])


def test_the_order_does_not_matter():
    """A part is replaced before what is inside it is set, whichever was written first."""
    techniques = ["scaled_embed", "mlra(rank=16)", "embed_detach"]
    assignments = ["model.width=64", "schedule=wsd(decay_share=0.5)", "schedule.warmup_steps=3", "optim.lr=0.1"]
    assignments.append("model.attention.projection.init=factor")
    runs = {compose("gpt2_nano", order, assignments) for order in itertools.permutations(techniques)}
    runs |= {
        compose("gpt2_nano", techniques, order) for order in (assignments[::-1], assignments[2:] + assignments[:2])
    }
    assert len(runs) == 1
    assert runs.pop().schedule == WSD(decay_share=0.5, warmup_steps=3)


def test_of_one_path_set_twice_the_last_counts():
    assert compose("gpt2_nano", [], ["steps=3", "steps=4"]).steps == 4


@pytest.mark.parametrize(
    ("recipe", "techniques", "assignments", "message"),
    [
        ("gpt2_nanoo", [], [], "did you mean 'gpt2_nano'"),
        ("gpt2_nano", ["scale_embed"], [], "did you mean 'scaled_embed'"),
        ("gpt2_nano", ["mlra(rnk=4)"], [], "did you mean 'rank'"),
        ("gpt2_nano", ["mlra(rank=many)"], [], "rank"),
        ("gpt2_nano", ["mlra(rank=129)"], [], "use 1 to 128"),
        ("gpt2_nano", ["mlra", "mlra(rank=4)"], [], "given twice"),
        ("gpt2_nano", ["scaled_embed", "embed_norm"], [], "exclude each other"),
        ("gpt2_nano", [], ["model.nun_layers=3"], "did you mean 'model.num_layers'"),
        ("gpt2_nano", [], ["lr=3"], "did you mean 'optim.lr'"),
        ("gpt2_nano", [], ["steps"], "write path=value"),
        ("gpt2_nano", [], ["=3"], "write path=value"),
        ("gpt2_nano", [], ["steps=many"], "expected a whole number"),
        ("gpt2_nano", [], ["steps=0"], "use a whole number from 1"),
        ("gpt2_nano", [], ["optim.lr=1e999"], "expected a finite number"),
        ("gpt2_nano", [], ["seed=99999999999999999999"], "seed=99999999999999999999 is out of range"),
        ("gpt2_nano", [], ["schedule=cosin"], "did you mean 'cosine'"),
        ("gpt2_nano", [], ["model.num_heads=7"], "not divisible"),
        ("gpt2_nano", [], ["model.width=4000000000"], "cannot be built"),
        ("gpt2_nano", [], ["data.sequence_length=512"], "longer than model.context_length=256"),
        ("gpt2_nano", [], ["precision=fp16"], "fp32, bf16, auto"),
        ("gpt2_nano", [], ["recipe=../../elsewhere"], "is a record"),
        ("gpt2_nano", [], ["techniques=['mlra']"], "use --with"),
        ("gpt2_nano", ["os:getcwd"], [], "is no technique"),
        ("gpt2_nano", ["os:system"], [], "is no part"),
        ("gpt2_nano", ["spikeless.run:DataConfig"], [], "is no technique"),
        ("gpt2_nano", ["spikeless.loggers.tensorboard:TensorBoard"], [], "is no part"),
    ],
)
def test_a_mistake_is_said_with_what_would_be_right(recipe, techniques, assignments, message):
    with pytest.raises(UserError, match=message):
        compose(recipe, techniques, assignments)


@pytest.mark.parametrize(
    "text",
    [
        "mlra(rank=__import__('os').mkdir('pwned'))",
        "mlra(rank=open('pwned', 'w'))",
        "mlra(**{'rank': 4})",
        "mlra(rank=4); import os",
        "mlra(rank=[].__class__)",
        "mlra(rank=(lambda: 4)())",
    ],
)
@pytest.mark.parametrize("where", ["with", "set"])
def test_nothing_is_evaluated(text, where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assignment = "model.attention.projection=" + text.replace("mlra", "LowRank")
    with pytest.raises(UserError):
        compose("gpt2_nano", [text] if where == "with" else [], [assignment] if where == "set" else [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("order", [1, -1])
def test_settings_that_fit_only_together_may_come_in_any_order(order):
    run = compose("gpt2_124m", [], ["data.batch_size=4", "data.micro_batches=1"][::order])
    run.check()
    assert (run.data.batch_size, run.data.micro_batches) == (4, 1)
