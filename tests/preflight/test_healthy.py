"""Models that are as they should be: none fails, warnings are true, and the audit leaves them as they were."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import spikeless
from spikeless.config import find, names_in
from spikeless.errors import UserError
from spikeless.init import initialise
from spikeless.nn.transformer import Transformer

with pytest.MonkeyPatch.context() as path:
    path.syspath_prepend(Path(__file__).parent)
    import hand_written
    from hand_written import LAYERS, VOCAB, WIDTH, Block, EinsumLM, NanoGPT, text, train, windows

# What theory says of embeddings with a std of 0.02 or 0.1 in front of a norm, and what is measured. Such models train,
# at smaller learning rates; the warnings say so, with the numbers.
SMALL_EMBEDDING = {
    "shortcut/first-layer-gain",
    "shortcut/first-layer-jacobian",
    "shortcut/small-shortcut",
    "gradient_flow/gradient-growth",
}
# Xavier has 6.9 where depth-scaled schemes stay below 2.6; behind an output norm of gain 1 it is more still.
STRONG = SMALL_EMBEDDING | {"sub_layers/large-sub-layer"}

LARGE_EMBEDDING = ("embed_norm", "embed_std_one", "scaled_embed")
OF_TECHNIQUE = {
    **{technique: set() for technique in LARGE_EMBEDDING},
    "xavier_init": STRONG,
    # the std of a low-rank product's entries: three times below any scheme for dense matrices
    "dense_scale_matched": SMALL_EMBEDDING | {"initial_weights/std-small"},
}
OF_FAMILY = {
    "bloom": set(),
    "gemma2": STRONG,
    "gemma3": STRONG,
    # no norm in front of the first attention: queries and keys see numbers of 0.02, and get gradients of 6e-11
    "opt, post-norm": SMALL_EMBEDDING | {"adam_epsilon/epsilon"},
}
FAMILIES = (
    *("gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "opt", "opt, post-norm", "bloom"),
    *("gpt-neox", "phi"),
)


class DeepNormBlock(Block):
    """Post-norm with a shortcut that is scaled up."""

    def forward(self, x):
        alpha = (2 * LAYERS) ** 0.25
        x = self.ln_1(alpha * x + self.attn(x))
        return self.ln_2(alpha * x + self.mlp(x))


class LayerScaleBlock(Block):
    """Branches with a scale per feature."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.scale_1, self.scale_2 = (nn.Parameter(torch.full((WIDTH,), 0.1)) for _ in range(2))

    def forward(self, x):
        x = x + self.scale_1 * self.attn(self.ln_1(x))
        return x + self.scale_2 * self.mlp(self.ln_2(x))


class ReZeroBlock(Block):
    """Branches that are shut at first."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        x = x + self.alpha * self.attn(self.ln_1(x))
        return x + self.alpha * self.mlp(self.ln_2(x))


class ParallelBlock(Block):
    """Attention and MLP side by side."""

    def forward(self, x):
        h = self.ln_1(x)
        return x + self.attn(h) + self.mlp(h)

    def __init__(self, *sizes):
        super().__init__(*sizes)
        del self.ln_2


def zero_writers() -> nn.Module:
    """The matrices that write to the stream start at zero, in all layers."""
    model = NanoGPT()
    for name, parameter in model.named_parameters():
        if name.endswith("c_proj.weight"):
            nn.init.zeros_(parameter)
    return model


def padded() -> nn.Module:
    """A vocabulary rounded up to a multiple of 64."""
    model = NanoGPT(vocab=192)
    nn.init.zeros_(model.lm_head.weight[-40:].detach())
    return model


HAND_WRITTEN = {
    "nano": (NanoGPT, SMALL_EMBEDDING),
    "einsum": (EinsumLM, SMALL_EMBEDDING),
    "nano, deep": (lambda: NanoGPT(layers=6), SMALL_EMBEDDING),
    "nano, parallel": (lambda: NanoGPT(block=ParallelBlock), SMALL_EMBEDDING),
    "nano, DeepNorm": (lambda: NanoGPT(block=DeepNormBlock), SMALL_EMBEDDING),
    "nano, LayerScale": (lambda: NanoGPT(block=LayerScaleBlock), SMALL_EMBEDDING),
    # nothing in the branches gets a gradient in the first step, and the finding says why
    "nano, ReZero": (lambda: NanoGPT(block=ReZeroBlock), {"adam_epsilon/no-gradient"}),
    "nano, zero writers": (zero_writers, {"adam_epsilon/no-gradient"}),
    "nano, padded": (padded, SMALL_EMBEDDING),
}


def ours(family: str, *techniques: str, scheme: str = ""):
    run = find("recipes", f"{family}_nano")()
    sizes = {"num_layers": LAYERS, "width": WIDTH, "num_heads": 4, "vocab_size": VOCAB, "context_length": 64}
    settings = [f"model.{name}={value}" for name, value in sizes.items()] + ["data.sequence_length=64"]
    settings += [f"init.scheme={scheme}"] if scheme else []
    return spikeless.recipes.adapt(run, techniques, settings)


def built(run) -> nn.Module:
    model = Transformer(run.model)
    initialise(model, run.init, 0, width=run.model.width, num_layers=run.model.num_layers)
    return model


def ids(vocab: int = 97):
    return torch.randint(vocab, (2, 13), generator=torch.Generator().manual_seed(1))


def warnings_of(report, state: str) -> set[str]:
    """Checks and codes of what it warns of; nothing fails."""
    assert report.measured.model.state == state
    bad = [
        f"{each.check}/{each.code} @ {each.where}: {each.message}"
        for each in report.findings
        if each.severity == "fail"
    ]
    assert not bad
    assert report.score is not None
    assert math.isfinite(report.score)
    return {f"{each.check}/{each.code}" for each in report.findings if each.severity == "warn"}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("technique", names_in("stabilizers"))
def test_a_technique(family, technique):
    found = warnings_of(spikeless.audit(ours(family, technique), ids()), "initial")
    assert found <= OF_TECHNIQUE.get(technique, SMALL_EMBEDDING)


@pytest.mark.parametrize(("family", "scheme"), [("gpt2", "normal"), ("llama", "gpt2")])
def test_an_initialisation_of_the_other_family_as_a_module(family, scheme):
    """Small init and Xavier are techniques, seen above. Of a module nothing is known but its weights."""
    model = built(ours(family, scheme=scheme))
    assert warnings_of(spikeless.audit(model, ids()), "initial") <= SMALL_EMBEDDING


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_of_transformers(family, make_family):
    found = warnings_of(spikeless.audit(make_family(family), ids()), "initial")
    assert found <= OF_FAMILY.get(family, SMALL_EMBEDDING)


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_a_model_written_by_hand(name):
    make, allowed = HAND_WRITTEN[name]
    assert warnings_of(spikeless.audit(make(), ids()), "initial") <= allowed


def test_a_factory():
    found = warnings_of(spikeless.audit(f"{hand_written.__name__}:NanoGPT", ids()), "initial")
    assert found <= SMALL_EMBEDDING


TRAINED = {
    "nano": NanoGPT,
    "einsum": EinsumLM,
    "gpt2, embed_norm": lambda: built(ours("gpt2", "embed_norm")),
    "llama, mlra": lambda: built(ours("llama", "mlra")),
    "gpt-neox": "gpt-neox",
    "gemma3": "gemma3",
}


@pytest.mark.parametrize("name", TRAINED)
def test_a_trained_model(name, make_family):
    make = TRAINED[name]
    vocab = 97 if isinstance(make, str) else VOCAB
    model = train(make_family(make) if isinstance(make, str) else make(), vocab=vocab)
    told = True if name == "einsum" else None  # without norms that are modules the weights do not tell
    report = spikeless.audit(model, windows(text(vocab), 2, 16, seed=10**6), trained=told)
    assert warnings_of(report, "trained") <= SMALL_EMBEDDING
    assert report.measured.logits is not None
    assert report.measured.logits.loss < math.log(vocab) - 1, "it has learned something"


def everything_about(model: nn.Module):
    """What an audit must not change: bits, flags, modes, hooks, attributes and the generator."""
    hooks = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_backward_hooks",
        "_backward_pre_hooks",
        "_forward_hooks_with_kwargs",
    )
    return {
        "numbers": {
            name: (id(each), each.detach().clone())
            for name, each in (*model.named_parameters(), *model.named_buffers())
        },
        "asked": {name: each.requires_grad for name, each in model.named_parameters()},
        "grad": {name: None if each.grad is None else each.grad.clone() for name, each in model.named_parameters()},
        "mode": {name: each.training for name, each in model.named_modules()},
        "hooks": {name: [len(getattr(each, hook)) for hook in hooks] for name, each in model.named_modules()},
        "attributes": {name: sorted(vars(each)) for name, each in model.named_modules()},
        "global hooks": len(nn.modules.module._global_forward_hooks) + len(nn.modules.module._global_forward_pre_hooks),
        "random numbers": torch.get_rng_state(),
        "switches": (torch.is_grad_enabled(), torch.get_num_threads(), torch.backends.cuda.flash_sdp_enabled()),
    }


def assert_same(before, after):
    assert before.keys() == after.keys()
    for key, value in before.items():
        if isinstance(value, dict):
            assert_same(value, after[key])
        elif isinstance(value, tuple) and isinstance(value[-1], torch.Tensor):
            assert value[0] == after[key][0], key
            assert torch.equal(value[1], after[key][1]), key
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, after[key]), key
        else:
            assert value == after[key], key


def half_frozen() -> nn.Module:
    model = NanoGPT()
    model.transformer.wpe.requires_grad_(False)
    model.transformer.h[1].eval()
    model(ids(), ids())[1].backward()
    return model


def broken() -> nn.Module:
    model = NanoGPT()
    model.transformer.h[1].attn.c_proj.weight.data[0, 0] = math.nan
    return model


@pytest.mark.parametrize(
    ("make", "more"),
    [
        (half_frozen, {"lr": 0.1, "range_steps": 5}),
        (EinsumLM, {"range_steps": 5}),
        (lambda: built(ours("llama", "mlra")), {}),
        (lambda: built(ours("gpt2")).eval(), {"range_steps": 5}),
    ],
    ids=["half frozen", "einsum", "llama", "gpt2"],
)
def test_the_model_is_left_as_it_was(make, more):
    model = make()
    before = everything_about(model)
    spikeless.audit(model, ids(), **more)
    assert_same(before, everything_about(model))


def test_a_broken_model_is_left_as_it_was():
    model = broken()
    weights = {name: each.detach().clone() for name, each in model.named_parameters()}
    before = everything_about(NanoGPT())["hooks"]
    assert spikeless.audit(model, ids()).verdict == "fail"
    assert all(torch.equal(each.isnan(), weights[name].isnan()) for name, each in model.named_parameters())
    assert_same(before, everything_about(model)["hooks"])


def test_a_model_that_is_refused_is_left_as_it_was():
    model = nn.Sequential(nn.Embedding(VOCAB, WIDTH), nn.Linear(WIDTH, 3), nn.Flatten())
    before = everything_about(model)
    with pytest.raises(UserError, match="not a causal language model"):
        spikeless.audit(model, ids())
    assert_same(before, everything_about(model))


def test_dropout_does_not_matter():
    """A model in training mode is audited as in evaluation mode, and draws no random number of the user's."""
    torch.manual_seed(0)
    model = NanoGPT(dropout=0.3).train()
    before = everything_about(model)
    with_dropout = spikeless.audit(model, ids())
    assert_same(before, everything_about(model))
    without = spikeless.audit(model.eval(), ids())
    assert [each.key for each in with_dropout.findings] == [each.key for each in without.findings]
    assert with_dropout.measured.logits == without.measured.logits
    assert with_dropout.measured.layers == without.measured.layers
