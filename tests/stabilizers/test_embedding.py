"""What the embedding techniques claim, measured on drawn models."""

import math
from dataclasses import dataclass

import pytest
import torch

from spikeless.config import replace_at
from spikeless.errors import UserError
from spikeless.init.gpt2 import GPT2Init
from spikeless.init.small import SmallInit
from spikeless.init.xavier import XavierInit
from spikeless.nn.norm import LayerNorm, RMSNorm
from spikeless.optim.adamw import AdamW
from spikeless.stabilizers import apply

FAMILIES = pytest.mark.parametrize("family", ["gpt2", "llama"])
TOKENS = torch.arange(97).repeat(2)[:32][None]


def effective_std(model: torch.nn.Module) -> float:
    """Std over the width of the vectors that enter the residual stream, before positions; mean over tokens."""
    return model.embedding.transform(model.embedding.weight).std(dim=-1, correction=0).mean().item()


# --- the baseline ---


@pytest.mark.parametrize("width", [128, 512, 1024])
def test_the_vanilla_shortcut_shrinks_with_width(width, tiny_run, build):
    model = build(tiny_run(scheme=SmallInit(), width=width, num_layers=1))
    assert effective_std(model) == pytest.approx(math.sqrt(2 / (5 * width)), rel=0.03)


# --- scaled_embed ---


@FAMILIES
@pytest.mark.parametrize("width", [128, 512, 1024])
def test_scaled_embed_gives_the_same_shortcut_at_every_width(family, width, tiny_run, build):
    run = tiny_run(family, "scaled_embed", scheme=SmallInit(), width=width, num_layers=1)
    assert run.model.embedding.multiplier == math.sqrt(width)
    assert effective_std(build(run)) == pytest.approx(math.sqrt(2 / 5), rel=0.03)


@FAMILIES
def test_scaled_embed_does_not_change_the_scale_of_tied_logits(family, tiny_run, build):
    """The head reads the table without the multiplier, else logits would grow by sqrt(D) = 8."""
    plain, scaled = (
        build(tiny_run(family, *names, scheme=SmallInit(), width=64, tied=True)) for names in ((), ("scaled_embed",))
    )
    assert torch.equal(plain.output_weight, scaled.output_weight)
    unseen = torch.arange(40, 97)  # logits of tokens not in the input: those share no vector with the residual stream
    ratio = scaled(TOKENS)[..., unseen].std() / plain(TOKENS)[..., unseen].std()
    assert ratio.item() == pytest.approx(1.0, abs=0.15)


# --- embed_norm ---


@pytest.mark.parametrize(
    ("family", "norm"), [("gpt2", LayerNorm(eps=1e-12)), ("llama", RMSNorm(eps=1e-12))], ids=["gpt2", "llama"]
)
@pytest.mark.parametrize("scheme", [SmallInit(), GPT2Init(), XavierInit()], ids=["small", "gpt2", "xavier"])
@pytest.mark.parametrize(("width", "vocab_size"), [(32, 97), (512, 97), (16, 131_072)])
def test_embed_norm_makes_the_shortcut_one_with_the_familys_norm(
    family, norm, scheme, width, vocab_size, tiny_run, build
):
    run = tiny_run(family, "embed_norm", scheme=scheme, width=width, vocab_size=vocab_size, num_layers=1)
    assert run.model.embedding.norm == norm
    model = build(run)
    rows = model.embedding.transform(model.embedding.weight[:97])
    stds = rows.std(1, correction=0) if family == "gpt2" else rows.square().mean(1).sqrt()
    torch.testing.assert_close(stds, torch.ones(97), rtol=1e-5, atol=0)
    assert model.embedding.norm.weight.requires_grad


def test_embed_norm_takes_another_epsilon_and_a_norm_that_has_none(tiny_run):
    assert tiny_run("gpt2", "embed_norm(eps=1e-5)").model.embedding.norm == LayerNorm(eps=1e-5)

    @dataclass(frozen=True, kw_only=True)
    class Plain:
        def build(self, width):
            return torch.nn.Identity()

    run = replace_at(tiny_run("gpt2"), {"model.norm": Plain()})
    assert apply(run, ["embed_norm"]).model.embedding.norm == Plain()


def test_embed_norm_comes_before_positions(tiny_run, build):
    model, seen = build(tiny_run("gpt2", "embed_norm")), []
    model.blocks[0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    model(TOKENS)
    expected = model.embedding.norm(model.embedding.weight[TOKENS]) + model.positions.weight[:32]
    torch.testing.assert_close(seen[0], expected)


# --- embed_detach ---


def losses_and_gradients(run, build):
    model = build(run).double()
    logits = model(TOKENS[:, :-1])
    loss = torch.nn.functional.cross_entropy(logits[0], TOKENS[0, 1:])
    loss.backward()
    return logits.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


@FAMILIES
@pytest.mark.parametrize("gamma", [0.1, 0.5])
def test_embed_detach_scales_the_embedding_gradient_and_nothing_else(family, gamma, tiny_run, build):
    plain, plain_gradients = losses_and_gradients(tiny_run(family, tied=False), build)
    detached, gradients = losses_and_gradients(tiny_run(family, f"embed_detach(gamma={gamma})", tied=False), build)
    torch.testing.assert_close(detached, plain, rtol=1e-12, atol=1e-12)
    plain_gradients["embedding.weight"] *= gamma
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, plain_gradients[name], rtol=1e-9, atol=1e-14)


@FAMILIES
def test_embed_detach_of_a_tied_table_shrinks_the_input_path_alone(family, tiny_run, build):
    """The gradient of a tied table is input path + head; both are known from an untied twin of equal weights."""
    twin = build(tiny_run(family, tied=False)).double()
    twin.head.weight.data.copy_(twin.embedding.weight.data)
    torch.nn.functional.cross_entropy(twin(TOKENS[:, :-1])[0], TOKENS[0, 1:]).backward()
    _, gradients = losses_and_gradients(tiny_run(family, "embed_detach", tied=True), build)
    expected = 0.1 * twin.embedding.weight.grad + twin.head.weight.grad
    torch.testing.assert_close(gradients["embedding.weight"], expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("gamma", [0.0, -0.1, 1.1])
def test_embed_detach_refuses_a_share_out_of_range(gamma, tiny_run):
    with pytest.raises(UserError, match=r"embed_detach\(gamma="):
        tiny_run("gpt2", f"embed_detach(gamma={gamma})")


# --- embed_std_one ---


@FAMILIES
def test_embed_std_one(family, tiny_run, build):
    run = tiny_run(family, "embed_std_one", tied=True, width=256)
    model = build(run)
    assert effective_std(model) == pytest.approx(1.0, rel=0.03)
    assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.05)
    groups = run.optim.build(model.named_parameters()).param_groups
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decay[id(model.embedding.weight)] == 0.0
    assert decay[id(model.head.weight)] == run.optim.weight_decay


def test_embed_std_one_keeps_what_was_undecayed(tiny_run):
    run = replace_at(tiny_run(), {"optim": AdamW(undecayed=("head",))})
    assert apply(run, ["embed_std_one"]).optim.undecayed == ("head", "token_embedding")
