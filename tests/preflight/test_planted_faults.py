"""Faults that users reported, planted in small real models: each is found, and the finding points at the place."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import spikeless
from spikeless.errors import UserError
from spikeless.optim.adamw import AdamW

with pytest.MonkeyPatch.context() as path:
    path.syspath_prepend(Path(__file__).parent)
    import hand_written
    from hand_written import HEADS, LAYERS, VOCAB, WIDTH, Block, NanoGPT

DEEP = math.sqrt(2 * LAYERS)
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "intermediate_size": 2 * WIDTH,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}

BASES: Mapping[str, Callable[[], nn.Module]] = {
    "nano": NanoGPT,
    "two layers": lambda: NanoGPT(layers=2),
    "six layers": lambda: NanoGPT(layers=6),
    "no multiple of 64": lambda: NanoGPT(vocab=300, layers=2),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES)),
    "two layers of llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES | {"num_hidden_layers": 2})),
    "small init": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES, initializer_range=math.sqrt(2 / (5 * WIDTH)))),
    "gemma": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**SIZES, head_dim=8)),
}


def ids(vocab: int = VOCAB) -> Tensor:
    return torch.randint(vocab, (2, 13), generator=torch.Generator().manual_seed(1))


@cache
def of_the_base(base: str, trained: bool | None) -> set[tuple[str, str]]:
    """Severity, check and code of all that is found in a base."""
    torch.manual_seed(0)
    return {
        (each.severity, f"{each.check}/{each.code}")
        for each in spikeless.audit(BASES[base](), ids(), trained=trained).findings
    }


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        base: the healthy model it is planted in.
        plant: changes that model, or gives another.
        found: severity, check and code of the finding, and what it has to name.
        more: arguments of the audit.
    """

    base: str
    plant: Callable[[nn.Module], nn.Module | None]
    found: tuple[tuple[str, str, str], ...]
    more: Mapping[str, Any] = field(default_factory=dict)


def scaled(**factors: float) -> Callable[[nn.Module], None]:
    """Multiplies the matrices whose name contains a key."""

    def plant(model: nn.Module) -> None:
        for part, factor in factors.items():
            wanted = [each for name, each in model.named_parameters() if part in name and each.dim() > 1]
            assert wanted, part
            for each in wanted:
                each.mul_(factor)

    return plant


def set_to(name: str, value: float | Callable[[Tensor], Any]) -> Callable[[nn.Module], None]:
    """Fills a parameter, or hands it to a function."""

    def plant(model: nn.Module) -> None:
        parameter = model.get_parameter(name)
        if callable(value):
            value(parameter)
        else:
            parameter.fill_(value)

    return plant


def one_entry(value: float) -> Callable[[Tensor], None]:
    def write(parameter: Tensor) -> None:
        parameter[3, 4] = value

    return write


def blocks(*kinds: type[nn.Module], **sizes: int) -> Callable[[nn.Module], nn.Module]:
    """A model of another kind of block everywhere, or of several kinds in turn."""

    def plant(model: nn.Module) -> nn.Module:
        torch.manual_seed(0)
        made = NanoGPT(**sizes)
        for index, block in enumerate(made.transformer.h):
            block.__class__ = kinds[index % len(kinds)]
        return made

    return plant


class NoShortcutBesideAttention(Block):
    def forward(self, x):
        x = self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class NoShortcutBesideMLP(Block):
    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return self.mlp(self.ln_2(x))


class ShortcutDetached(Block):
    def forward(self, x):
        x = x.detach() + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class BranchDetached(Block):
    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x)).detach()


class AddedTwice(Block):
    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + x + self.mlp(self.ln_2(x))


def gains(value: float, part: str = "") -> Callable[[nn.Module], None]:
    def plant(model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and name.endswith("weight") and part in name:
                parameter.fill_(value)

    return plant


def no_norms(model: nn.Module) -> None:
    model.transformer.ln_f = nn.Identity()
    for block in model.transformer.h:
        block.ln_1 = block.ln_2 = nn.Identity()
        for linear in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj):
            nn.init.normal_(linear.weight, std=3 / math.sqrt(linear.in_features))
    nn.init.normal_(model.lm_head.weight)


def value_rows(parameter: Tensor) -> None:
    parameter[2 * WIDTH :] = 0.0


def without_use(model: nn.Module) -> None:
    model.transformer.h[1].attn.extra = nn.Linear(WIDTH, WIDTH, bias=False)


def all_matrices(factor: float) -> Callable[[nn.Module], None]:
    def plant(model: nn.Module) -> None:
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(factor)

    return plant


def together(*plants: Callable[[nn.Module], Any]) -> Callable[[nn.Module], None]:
    def plant(model: nn.Module) -> None:
        for each in plants:
            each(model)

    return plant


HEAD = "transformer.wte.weight"
C_FC, C_PROJ = "transformer.h.1.mlp.c_fc.weight", "transformer.h.1.attn.c_proj.weight"

FAULTS: Mapping[str, Fault] = {
    "tied head holds large numbers, loss beyond 500": Fault(
        "two layers",
        set_to(HEAD, lambda w: nn.init.normal_(w, std=15)),
        (("fail", "logits/initial-loss", "head"), ("fail", "embedding_std/tied", HEAD)),
    ),
    "tied embedding N(0, 1), the default of nn.Embedding": Fault(
        "two layers",
        set_to(HEAD, nn.init.normal_),
        (("fail", "embedding_std/tied", HEAD), ("fail", "logits/initial-loss", "head")),
    ),
    "embedding of std 1 under weight decay": Fault(
        "two layers of llama",
        set_to("model.embed_tokens.weight", nn.init.normal_),
        (("warn", "embedding_std/decayed", "model.embed_tokens.weight"),),
        {"optimizer": AdamW()},
    ),
    "depth scaling on W1 instead of W2": Fault(
        "nano",
        scaled(**{"mlp.c_proj.weight": DEEP, "mlp.c_fc.weight": 1 / DEEP}),
        (("fail", "depth_scaling/wrong-matrix", "mlp.c_fc.weight"),),
    ),
    "depth scaling on W_Q instead of W_O": Fault(
        "llama",
        scaled(**{"q_proj.weight": 1 / DEEP, "down_proj.weight": 1 / DEEP}),
        (("fail", "depth_scaling/wrong-matrix", "q_proj.weight"),),
    ),
    "depth scaling on W1 as well": Fault(
        "nano", scaled(**{"mlp.c_fc.weight": 1 / DEEP}), (("warn", "depth_scaling/extra-matrix", "mlp.c_fc.weight"),)
    ),
    "depth scaling of W2 left out": Fault(
        "nano", scaled(**{"mlp.c_proj.weight": DEEP}), (("warn", "depth_scaling/one-of-two", "mlp.c_proj.weight"),)
    ),
    "depth scaling of W_O left out": Fault(
        "nano", scaled(**{"attn.c_proj.weight": DEEP}), (("warn", "depth_scaling/one-of-two", "attn.c_proj.weight"),)
    ),
    "depth scaling left out in one layer": Fault(
        "nano", scaled(**{C_PROJ: DEEP}), (("warn", "layers_alike/layer-unlike", C_PROJ),)
    ),
    "one layer left at PyTorch's default": Fault(
        "nano",
        lambda model: model.transformer.h[1].mlp.c_fc.reset_parameters(),
        (("fail", "layers_alike/layer-unlike", C_FC),),
    ),
    "NaN in one weight": Fault(
        "nano",
        set_to(C_PROJ, one_entry(math.nan)),
        (("fail", "broken_weights/not-finite", C_PROJ), ("fail", "logits/not-finite", "head")),
    ),
    "infinity in one weight": Fault(
        "llama",
        set_to("model.layers.2.mlp.up_proj.weight", one_entry(math.inf)),
        (("fail", "broken_weights/not-finite", "model.layers.2.mlp.up_proj.weight"),),
    ),
    "NaN in a norm": Fault(
        "nano",
        set_to("transformer.h.1.ln_2.weight", math.nan),
        (("fail", "broken_weights/not-finite", "transformer.h.1.ln_2.weight"),),
    ),
    "a value matrix of zeros": Fault(
        "two layers of llama",
        set_to("model.layers.1.self_attn.v_proj.weight", 0.0),
        (("fail", "broken_weights/zero-matrix", "model.layers.1.self_attn.v_proj.weight"),),
    ),
    "values of zeros in a fused matrix": Fault(
        "two layers",
        set_to("transformer.h.1.attn.c_attn.weight", value_rows),
        (("warn", "adam_epsilon/no-gradient", "transformer.h.1.attn.c_proj.weight"),),
    ),
    "queries and keys of zeros": Fault(
        "two layers of llama",
        scaled(q_proj=0.0, k_proj=0.0),
        (
            ("fail", "broken_weights/zero-matrix", "layers.0.self_attn.q_proj.weight"),
            ("fail", "broken_weights/zero-matrix", "layers.0.self_attn.k_proj.weight"),
        ),
    ),
    "a matrix of ones": Fault("two layers", set_to(C_FC, 1.0), (("fail", "broken_weights/constant-matrix", C_FC),)),
    "a matrix with a mean": Fault(
        "two layers", set_to(C_FC, lambda w: w.add_(0.03)), (("warn", "sub_layers/dependent-entries", C_FC),)
    ),
    "the same row for every token": Fault(
        "two layers", set_to(HEAD, lambda w: w.copy_(w[:1].expand_as(w))), (("fail", "broken_weights/same-rows", HEAD),)
    ),
    "a norm of gain 0": Fault(
        "two layers",
        set_to("transformer.h.1.ln_2.weight", 0.0),
        (("fail", "broken_weights/zero-gain", "transformer.h.1.ln_2.weight"),),
    ),
    "a norm of gain 10": Fault(
        "two layers",
        set_to("transformer.h.1.ln_2.weight", 10.0),
        (("fail", "norm_gains/gain-off", "transformer.h.1.ln_2.weight"),),
    ),
    "ones in norms that compute 1 + w": Fault(
        "gemma", gains(1.0), (("warn", "norm_gains/gain-off", "model.layers.0.input_layernorm.weight"),)
    ),
    "zeros in norms that do not compute 1 + w": Fault(
        "two layers of llama", gains(0.0, "norm"), (("fail", "broken_weights/zero-gain", "norm.weight"),)
    ),
    "norms decayed to 0.2": Fault(
        "two layers", gains(0.2), (("warn", "norm_gains/gain-off", "transformer.h.0.ln_1.weight"),)
    ),
    "biases of one": Fault(
        "two layers",
        set_to("transformer.h.1.mlp.c_fc.bias", 1.0),
        (("warn", "biases/large", "transformer.h.1.mlp.c_fc.bias"),),
    ),
    "10 times too large everywhere": Fault(
        "small init",
        all_matrices(10.0),
        (("fail", "initial_weights/std-large", "weight"), ("fail", "logits/initial-loss", "head")),
    ),
    "100 times too small everywhere": Fault(
        "two layers", all_matrices(0.01), (("fail", "initial_weights/std-small", "transformer."),)
    ),
    "queries and keys of one layer 12 times too large": Fault(
        "small init",
        scaled(**{"layers.1.self_attn.q_proj": 12.0, "layers.1.self_attn.k_proj": 12.0}),
        (
            ("warn", "attention/logit-max", "layer 1"),
            ("warn", "attention/entropy-collapse", "layer 1"),
            ("fail", "layers_alike/layer-unlike", "layers.1.self_attn.k_proj.weight"),
        ),
    ),
    "no norms at all, and a stream that explodes": Fault(
        "six layers",
        no_norms,
        (("fail", "gradient_flow/residual-growth", "stream"), ("fail", "logits/initial-loss", "head")),
    ),
    "the stream added twice": Fault(
        "six layers",
        blocks(AddedTwice, layers=6),
        (("warn", "gradient_flow/residual-growth", "stream"),),
    ),
    "no shortcut beside attention in one block": Fault(
        "nano",
        blocks(Block, NoShortcutBesideAttention, Block),
        (("warn", "shortcut/missing", "layer 1"), ("warn", "gradient_flow/gradient-lost", "layer 1")),
    ),
    "no shortcut beside the MLP in one block": Fault(
        "nano",
        blocks(Block, NoShortcutBesideMLP, Block),
        (("warn", "shortcut/missing", "layer 1"), ("warn", "gradient_flow/gradient-lost", "layer 1")),
    ),
    "a shortcut without gradient": Fault(
        "nano",
        blocks(Block, ShortcutDetached, Block),
        (("warn", "gradient_flow/gradient-lost", "layer 1"),),
    ),
    "a sub-layer without gradient": Fault(
        "nano",
        blocks(Block, BranchDetached, Block),
        (("warn", "adam_epsilon/no-gradient", "transformer.h.1.mlp.c_fc.weight"),),
    ),
    "a parameter without use": Fault(
        "two layers", without_use, (("warn", "adam_epsilon/no-gradient", "transformer.h.1.attn.extra.weight"),)
    ),
    "Adam's epsilon above the gradients": Fault(
        "two layers",
        lambda model: None,
        (("warn", "adam_epsilon/epsilon", "transformer.h."),),
        {"optimizer": AdamW(eps=1e-3)},
    ),
    "Adam's epsilon far above the gradients": Fault(
        "two layers",
        lambda model: None,
        (("fail", "adam_epsilon/epsilon", "transformer.h."),),
        {"optimizer": AdamW(eps=1.0)},
    ),
    "rows of zeros in the vocabulary": Fault(
        "no multiple of 64",
        set_to(HEAD, lambda w: w[-60:].zero_()),
        (("warn", "padded_vocabulary/many-rows", HEAD),),
    ),
    "a learning rate a hundred times too large": Fault(
        "two layers", lambda model: None, (("warn", "learning_rate/critical", "lr=20"),), {"lr": 20.0}
    ),
    "a learning rate that blows up in a range test": Fault(
        "two layers", lambda model: None, (("fail", "learning_rate/range", "lr=20"),), {"lr": 20.0, "range_steps": 40}
    ),
    "a value matrix of zeros in a trained model": Fault(
        "two layers of llama",
        set_to("model.layers.1.self_attn.v_proj.weight", 0.0),
        (("fail", "broken_weights/zero-matrix", "model.layers.1.self_attn.v_proj.weight"),),
        {"trained": True},
    ),
    "weights of a trained model that were loaded into the wrong places": Fault(
        "two layers",
        set_to(HEAD, nn.init.normal_),
        (("warn", "logits/worse-than-uniform", "head"),),
        {"trained": True},
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_where_it_is(name):
    fault = FAULTS[name]
    torch.manual_seed(0)
    model = BASES[fault.base]()
    with torch.no_grad():
        model = fault.plant(model) or model
    vocab = model.get_parameter(HEAD).shape[0] if isinstance(model, NanoGPT) else VOCAB
    report = spikeless.audit(model, ids(vocab), **fault.more)
    _assert_found(report, fault.found)
    if not {"optimizer", "lr"} & set(fault.more):
        base = "nano" if isinstance(model, NanoGPT) else fault.base.removeprefix("two layers of ")
        known = of_the_base(base, fault.more.get("trained"))
        assert not known & {(severity, code) for severity, code, _ in fault.found}, "the base has it too"


@pytest.mark.parametrize(
    ("factory", "found"),
    [
        ("tied_to_memory", (("fail", "broken_weights/never-written", HEAD),)),
        ("truncated_nowhere", (("warn", "truncation/idle", HEAD),)),
        (
            "block_built_later",
            (
                ("fail", "layers_alike/layer-unlike", "transformer.h.1."),
                ("warn", "layers_alike/distribution-unlike", "transformer.h.1."),
            ),
        ),
    ],
)
def test_a_fault_in_the_code_that_builds_is_found(factory, found):
    report = spikeless.audit(f"{hand_written.__name__}:{factory}", ids())
    _assert_found(report, found)


def test_truncation_at_three_standard_deviations_is_no_fault():
    report = spikeless.audit(f"{hand_written.__name__}:well_truncated", ids())
    assert ("pass", "truncation") in {(each.severity, each.check) for each in report.findings}


def test_attention_without_a_mask_is_refused():
    class NotCausal(hand_written.SelfAttention):
        def forward(self, x):
            q, k, v = self.c_attn(x).chunk(3, dim=2)
            return self.c_proj((q @ k.transpose(1, 2)).softmax(-1) @ v)

    model = NanoGPT()
    for block in model.transformer.h:
        block.attn.__class__ = NotCausal
    with pytest.raises(UserError, match="not a causal language model"):
        spikeless.audit(model, ids())


def _assert_found(report, expected):
    seen = "\n".join(
        f"{each.severity} {each.check}/{each.code} @ {each.where}: {each.message}"
        for each in report.findings
        if each.severity != "pass"
    )
    assert report.verdict == ("fail" if any(severity == "fail" for severity, _, _ in expected) else report.verdict)
    assert report.verdict != "pass"
    for severity, code, place in expected:
        assert any(
            (each.severity, f"{each.check}/{each.code}") == (severity, code) and place in f"{each.where} {each.message}"
            for each in report.findings
        ), f"{severity} {code} @ {place} is not among\n{seen}"
