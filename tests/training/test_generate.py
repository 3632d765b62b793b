"""Generation: the cache changes nothing, draws are what they say, the context never overflows."""

import itertools
from pathlib import Path

import pytest
import torch

from spikeless.config import replace_at
from spikeless.data.tokenizers._fast import FastTokenizer
from spikeless.errors import SpikelessWarning, UserError
from spikeless.pretrained.write import write_pretrained
from spikeless.training.checkpoints import Checkpoints
from spikeless.training.generate import SamplingConfig, draw, generate, written
from spikeless.training.loop import train
from spikeless.training.trained import load_trained

FOREIGN = Path(__file__).parents[1] / "data"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(FOREIGN))
    from foreign import byte_level, unigram, wordpiece

GREEDY = SamplingConfig(temperature=0)
LOGITS = torch.tensor([0.5, 0.15, 0.3, 0.05]).log()


@pytest.fixture(params=["gpt2", "llama"])
def model(request, tiny_run, build):
    """A model whose tokens do depend on what came before: weights larger than at initialisation."""
    technique = ["mlra"] if request.param == "gpt2" else []
    model = build(tiny_run(request.param, *technique, context_length=12, num_kv_heads=2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    return model


def without_cache(model, prompt, count):
    """Greedy tokens from whole forward passes; at the end of the context the oldest half is forgotten."""
    context, window, new = model.config.context_length, list(prompt)[-model.config.context_length :], []
    for _ in range(count):
        if len(window) > context:
            window = window[-max(1, context // 2) :]
        with torch.no_grad():
            new.append(int(model(torch.tensor([window]))[0, -1].argmax()))
        window.append(new[-1])
    return new


@pytest.mark.parametrize(("prompt", "count"), [([5], 25), (range(12), 3), (range(30), 3)])
def test_the_cache_changes_nothing_also_past_the_end_of_the_context(model, prompt, count):
    """Twelve tokens of context: it overflows twice, or at once, or before the first token."""
    assert list(generate(model, prompt, count, GREEDY)) == without_cache(model, prompt, count)


def test_attention_that_keeps_no_cache_sees_all_tokens_each_time(model):
    """A part from outside the package need not know of the cache."""
    expected = without_cache(model, range(5), 12)
    for block in model.blocks:
        plain = block.attention.forward
        block.attention.forward = lambda x, rotation, cache, mask, plain=plain: plain(x, rotation, None, mask)
    assert list(generate(model, range(5), 12, GREEDY)) == expected


@pytest.mark.parametrize("context", [1, 2, 3])
def test_a_context_of_hardly_anything_works(context, tiny_run, build):
    model = build(tiny_run("gpt2", context_length=context)).eval()
    assert list(generate(model, [3, 4], 4, GREEDY)) == without_cache(model, [3, 4], 4)


def test_the_seed_decides_the_draws(model):
    def text(seed):
        return list(generate(model, [1], 10, SamplingConfig(seed=seed, temperature=2.0)))

    before = torch.get_rng_state()
    assert text(0) == text(0)
    assert text(0) != text(1)
    assert torch.equal(torch.get_rng_state(), before), "generation has a generator of its own"


def test_the_likeliest_alone_is_greedy(model):
    greedy = list(generate(model, [1], 10, GREEDY))
    assert list(generate(model, [1], 10, SamplingConfig(top_k=1))) == greedy
    assert list(generate(model, [1], 10, SamplingConfig(top_p=1e-9))) == greedy
    assert list(generate(model, [1], 10, SamplingConfig(temperature=1e-45))) == greedy


def test_an_empty_prompt_is_refused(model):
    with pytest.raises(UserError, match="prompt is empty"):
        next(generate(model, [], 1, GREEDY))


# --- one draw ---


def drawn(sampling: SamplingConfig, logits: torch.Tensor = LOGITS, count: int = 400) -> set[int]:
    generator = torch.Generator().manual_seed(0)
    return {draw(logits, sampling, generator) for _ in range(count)}


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.4, {0}), (0.51, {0, 2}), (0.79, {0, 2}), (0.81, {0, 1, 2}), (0.96, {0, 1, 2, 3}), (1.0, {0, 1, 2, 3})],
)
def test_top_p_keeps_the_smallest_set_with_that_probability(top_p, kept):
    assert drawn(SamplingConfig(top_p=top_p)) == kept


@pytest.mark.parametrize(
    ("top_k", "kept"), [(1, {0}), (2, {0, 2}), (3, {0, 1, 2}), (0, {0, 1, 2, 3}), (9, {0, 1, 2, 3})]
)
def test_top_k_keeps_the_k_likeliest(top_k, kept):
    assert drawn(SamplingConfig(top_k=top_k)) == kept


@pytest.mark.parametrize("top_k", [1, 3])
def test_top_k_keeps_no_more_than_k_of_equals(top_k):
    assert len(drawn(SamplingConfig(top_k=top_k), torch.zeros(10))) == top_k


def test_top_p_counts_after_top_k_and_temperature():
    """Of {0: 0.5, 2: 0.3} the first has 62 %; at temperature 10 all are about equal."""
    assert drawn(SamplingConfig(top_k=2, top_p=0.6)) == {0}
    assert drawn(SamplingConfig(temperature=10, top_p=0.6)) == {0, 1, 2}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_the_softmax_at_that_temperature(temperature):
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(4)
    for _ in range(4000):
        counts[draw(LOGITS, SamplingConfig(temperature=temperature), generator)] += 1
    torch.testing.assert_close(counts / 4000, (LOGITS / temperature).softmax(0), atol=0.03, rtol=0)


@pytest.mark.parametrize("logits", [torch.tensor([1e30, -1e30, 0.0]), torch.tensor([0.0, -torch.inf, -torch.inf])])
@pytest.mark.parametrize("temperature", [0, 1e-320, 1.0, 1e300])
def test_extreme_numbers_are_drawn_from(logits, temperature):
    assert 0 in drawn(SamplingConfig(temperature=temperature), logits, 20)


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -0.1}, {"temperature": float("nan")}, {"temperature": float("inf")}, {"top_k": -1}]
    + [{"top_p": each} for each in (0, -1, 1.01, float("nan"))]
    + [{"seed": -1}, {"seed": 1 << 63}],
    ids=str,
)
def test_sampling_out_of_range_is_refused(wrong):
    with pytest.raises(UserError, match="is out of range; use"):
        SamplingConfig(**wrong)


# --- from a run folder ---


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_run, corpus):
    """A run of eight steps with checkpoints at 4 and 8."""
    folder = tmp_path_factory.mktemp("trained")
    changes = {"data.spec": corpus, "data.tokenizer": "bytes", "model.vocab_size": None, "steps": 8}
    changes |= {"checkpoint.every": 4, "evaluation.tokens": 64, "precision": "fp32", "data.batch_size": 4}
    train(replace_at(tiny_run("gpt2"), changes), folder)
    return folder


def test_a_run_folder_is_its_newest_checkpoint(trained):
    found = load_trained(trained)
    model, tokenizer = found.model, found.tokenizer
    last = load_trained(Checkpoints(trained).path(8)).model
    before = load_trained(Checkpoints(trained).path(4)).model
    assert not model.training
    assert tokenizer.decode(tokenizer.encode("héllo")) == "héllo"
    pairs = list(zip(model.parameters(), last.parameters(), before.parameters(), strict=True))
    assert all(torch.equal(ours, newest) for ours, newest, _ in pairs)
    assert not all(torch.equal(ours, older) for ours, _, older in pairs)


def test_a_corrupted_newest_checkpoint_falls_back_loudly(trained):
    file = Checkpoints(trained).path(8) / "model.safetensors"
    whole = file.read_bytes()
    before = load_trained(Checkpoints(trained).path(4)).model
    try:
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.warns(SpikelessWarning, match="step-00000008.*using the one before it"):
            model = load_trained(trained).model
        with pytest.raises(UserError, match="corrupted"):
            load_trained(Checkpoints(trained).path(8))
    finally:
        file.write_bytes(whole)
    assert all(map(torch.equal, model.parameters(), before.parameters()))


def test_what_is_no_run_folder_is_refused(tmp_path, trained):
    with pytest.raises(UserError, match="neither a run folder"):
        load_trained(tmp_path)
    (tmp_path / "run.json").write_bytes((trained / "run.json").read_bytes())
    with pytest.raises(UserError, match="has no checkpoint yet"):
        load_trained(tmp_path)
    with pytest.raises(UserError, match="incomplete"):
        load_trained(Checkpoints(tmp_path).path(3))


def test_generation_is_lazy(model):
    assert len(list(itertools.islice(generate(model, [1], 10**9, GREEDY), 3))) == 3


@pytest.mark.parametrize(("make", "end"), [(byte_level, "<|endoftext|>"), (unigram, "</s>"), (wordpiece, "[SEP]")])
def test_what_is_written_is_the_whole_without_the_prompt(make, end):
    """Decoders join tokens by what stands before them: ids decoded alone would read "thethe", or show "##"."""
    tokenizer = FastTokenizer(make().to_str(), "theirs", end)
    ids = tokenizer.encode("the quick brown fox jumps over the lazy dog, 0123456789 times. said the 7th fox")
    whole = tokenizer.decode(ids)
    for cut in range(len(ids)):
        pieces = list(written(tokenizer, ids[:cut], iter(ids[cut:])))
        assert tokenizer.decode(ids[:cut]) + "".join(pieces) == whole
        assert len(pieces) > 1 or len(ids) - cut < 3


def test_characters_of_several_tokens_wait_and_nothing_is_hidden():
    tokenizer = FastTokenizer(byte_level(special=("<|endoftext|>", "<s>")).to_str(), "theirs")
    robot = tokenizer.encode("a🤖é")
    assert list(written(tokenizer, [], robot)) == ["a", "🤖", "é"]
    assert list(written(tokenizer, [], robot[:3])) == ["a", "\ufffd"]
    assert list(written(tokenizer, robot[:1], [1, 999, *robot[1:3], 999])) == ["<s>", "<id 999>", "\ufffd<id 999>"]


def test_a_model_of_transformers_continues_as_ours_does(tmp_path, tiny_run, build):
    transformers = pytest.importorskip("transformers")
    model = build(tiny_run("gpt2", context_length=12)).eval()
    tokenizer = FastTokenizer(byte_level(vocab_size=257).to_str(), "theirs")
    write_pretrained(model, tokenizer, tmp_path, dtype=torch.float32)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    expected = list(generate(model, [5, 6], 14, GREEDY))
    assert list(generate(theirs, [5, 6], 14, GREEDY, 12)) == expected
