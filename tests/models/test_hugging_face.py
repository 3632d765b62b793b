import dataclasses

import pytest
import torch
import transformers
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from spikeless.config import find, names_in, replace_at
from spikeless.nn.transformer import ModelConfig, Transformer
from spikeless.roles import role_of

SHAPES = {
    "gpt2-tied": ("gpt2", {}),
    "gpt2-untied": ("gpt2", {"tied": False}),
    "gpt2-narrow-ffn": ("gpt2", {"ffn.width": 48, "norm.eps": 1e-3}),
    "llama-tied": ("llama", {"tied": True, "num_kv_heads": None}),
    "llama-untied": ("llama", {"tied": False, "num_kv_heads": None}),
    "llama-grouped": ("llama", {"tied": False, "num_kv_heads": 2}),
    "llama-one-group": ("llama", {"tied": True, "num_kv_heads": 1}),
    "llama-other": ("llama", {"ffn.width": 48, "norm.eps": 1e-3, "positions.theta": 500.0}),
}
CLASSES = {
    "gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel),
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
}


class TrueRMSNorm(torch.nn.Module):
    """Theirs computes in fp32 whatever the input; this one in the input's type."""

    def __init__(self, weight: torch.nn.Parameter, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * (x / torch.sqrt((x * x).mean(dim=-1, keepdim=True) + self.eps))


def their_model(config: ModelConfig) -> torch.nn.Module:
    config_class, model_class = CLASSES[config.family]
    arguments = find("models", config.family).hugging_face_config(config)
    return model_class(config_class(**arguments, attn_implementation="sdpa")).eval()


@pytest.fixture(params=SHAPES)
def config(request, tiny_run):
    family, changes = SHAPES[request.param]
    return replace_at(tiny_run(family).model, changes)


@pytest.fixture(params=[1, 5], ids=["init", "inflated"])
def ours(request, config, tiny_run, build):
    """Also with weights five times as large, biases and norms drawn: at init a wrong term may be too small to see."""
    model = build(dataclasses.replace(tiny_run(config.family), model=config))
    if request.param != 1:
        for name, parameter in model.named_parameters():
            scale = parameter.detach() * request.param if role_of(name).is_matrix else 1 + parameter.detach()
            parameter.data = scale if role_of(name).is_matrix else scale * torch.randn_like(scale)
    return model


@pytest.fixture
def theirs(ours):
    """Their model with our weights; strict loading refuses a missing or unused one."""
    model = their_model(ours.config)
    state = find("models", ours.config.family).to_hugging_face(ours.state_dict(), ours.config)
    model.load_state_dict(state, strict=True)
    return model


def largest_difference(ours: torch.nn.Module, theirs: torch.nn.Module) -> tuple[float, float]:
    tokens = torch.randint(ours.config.vocab_size, (2, 24))
    with torch.no_grad():
        a, b = ours(tokens), theirs(tokens).logits
    return (a - b).abs().max().item(), max(1.0, a.abs().max().item())


def test_logits_agree_in_fp32(ours, theirs):
    difference, scale = largest_difference(ours, theirs)
    assert difference <= 1e-5 * scale


def test_logits_agree_in_float64(ours, theirs):
    for name, module in list(theirs.named_modules()):
        if isinstance(module, LlamaRMSNorm):
            theirs.set_submodule(name, TrueRMSNorm(module.weight, module.variance_epsilon))
    difference, _ = largest_difference(ours.double(), theirs.double())
    assert difference <= 1e-10


def test_the_way_there_and_back_keeps_every_bit(ours, theirs):
    family = find("models", ours.config.family)
    back = family.from_hugging_face(theirs.state_dict(), ours.config)
    assert back.keys() == ours.state_dict().keys()
    assert all(torch.equal(back[name], value) for name, value in ours.state_dict().items())


def test_their_weights_make_our_model(config):
    """The other way round: from a model that they initialised, as when one is loaded from the hub."""
    theirs, ours = their_model(config), Transformer(config)
    ours.load_state_dict(find("models", config.family).from_hugging_face(theirs.state_dict(), config), strict=True)
    difference, scale = largest_difference(ours, theirs)
    assert difference <= 1e-5 * scale


def test_the_parameter_count_is_theirs(config):
    with torch.device("meta"):
        ours = Transformer(config)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in their_model(config).parameters())


def test_every_family_is_compared():
    assert set(CLASSES) == set(names_in("models"))
