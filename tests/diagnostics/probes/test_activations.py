"""Shortcut, attention, gradients and logits against what the model itself says."""

import math

import pytest
import torch
from torch.nn import functional as F

from spikeless.diagnostics.anatomy import dissect
from spikeless.diagnostics.anatomy.language_model import LanguageModel
from spikeless.diagnostics.probes.attention_statistics import attention_statistics
from spikeless.diagnostics.probes.gradient_flow import gradient_flow
from spikeless.diagnostics.probes.growth_over_depth import growth_over_depth
from spikeless.diagnostics.probes.output_logits import output_logits
from spikeless.diagnostics.probes.shortcut import shortcut


@pytest.mark.parametrize("family", ["gpt2", "opt", "gpt-neox", "gemma2", "bloom", "phi"])
def test_the_shortcut_is_what_enters_the_norms(family, make_family):
    model, entered, found = make_family(family), [], []
    lm = LanguageModel(model)
    anatomy = dissect(lm)
    ids = torch.randint(97, (2, 16))
    paths = [norm for norm in anatomy.norms if "post_" not in norm or "gemma" not in family]
    modules = dict(model.named_modules())
    handles = [
        modules[path].register_forward_pre_hook(
            lambda _, args, path=path: entered.append((path, args[0].reshape(-1, 32).std(1, correction=0)))
        )
        for path in paths
    ]
    with torch.no_grad():
        model(ids)
        for handle in handles:
            handle.remove()
        with lm.quiet():
            anatomy.run(
                ids, lambda v: found.extend((v.segments[i].norms[0].path, shortcut(v, i)) for i in range(len(v.parts)))
            )
    truth = dict(entered)
    for path, reading in found:
        assert reading.min == pytest.approx(float(truth[path].min()), rel=1e-4)
        assert reading.median == pytest.approx(float(truth[path].median()), rel=1e-4)
        assert reading.mean == pytest.approx(float(truth[path].mean()), rel=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt", "gpt-neox", "bloom"])
def test_attention_is_what_the_model_says_it_is(family, make_family):
    model, found = make_family(family, inflate=8.0), []
    ids = torch.randint(97, (2, 16))
    lm = LanguageModel(model)
    anatomy = dissect(lm)
    with torch.no_grad(), lm.quiet():
        anatomy.run(ids, lambda view: found.append(attention_statistics(view, 0)))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = model(ids, output_attentions=True).attentions
    for reading, each in zip(found, weights, strict=True):
        entropy = -(each * each.clamp(min=1e-30).log()).sum(-1)
        assert reading.entropy == pytest.approx(float(entropy.mean()), rel=1e-4)
        keys = torch.arange(1, 17).log()[1:]
        relative = (entropy[..., 1:] / keys).mean((0, 2))
        assert reading.relative_entropy == pytest.approx(float(relative.mean()), rel=1e-4)
        assert reading.lowest_head == pytest.approx(float(relative.min()), rel=1e-4)


def test_the_largest_attention_logit(tiny_run, build):
    model, found = build(tiny_run("gpt2", width=32, num_heads=4)), []
    attention, stored = model.blocks[0].attention, {}
    attention.register_forward_pre_hook(lambda _, args: stored.update(x=args[0]))
    lm = LanguageModel(model)
    anatomy = dissect(lm)
    with torch.no_grad(), lm.quiet():
        anatomy.run(torch.randint(97, (2, 16)), lambda view: found.append(attention_statistics(view, 0)))
        q, k = (f(stored["x"]).unflatten(-1, (4, 8)).transpose(1, 2) for f in (attention.query, attention.key))
        logits = (q @ k.transpose(-1, -2) / math.sqrt(8)).masked_fill(~torch.ones(16, 16, dtype=torch.bool).tril(), 0)
    assert found[0].logit_max == pytest.approx(float(logits.abs().max()), rel=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "opt, post-norm", "gpt-neox"])
def test_gradients_over_depth(family, make_family):
    model, streams = make_family(family, inflate=3.0), []
    anatomy = dissect(LanguageModel(model))
    ids = torch.randint(97, (3, 13))
    flow = gradient_flow(anatomy, ids)
    modules = dict(model.named_modules())

    def keep(_, args, kwargs):
        streams.append(args[0] if args else kwargs["hidden_states"])
        streams[-1].retain_grad()

    for path in anatomy.paths:
        modules[path].register_forward_pre_hook(keep, with_kwargs=True)
    loss = F.cross_entropy(model(ids[:, :-1]).logits.flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    assert flow.loss == pytest.approx(loss.item(), rel=1e-5)
    assert flow.norms == pytest.approx([float(each.grad.norm()) for each in streams], rel=1e-4)
    for name, parameter in model.named_parameters():
        assert torch.allclose(flow.gradients[name], parameter.grad, rtol=1e-3, atol=1e-6)


def test_growth_tells_exponential_from_linear():
    exponential = growth_over_depth([0.5 * 1.3**layer for layer in range(12)])
    assert exponential.better == "exponential"
    assert exponential.log_slope == pytest.approx(math.log(1.3))
    linear = growth_over_depth([0.5 + 0.2 * layer for layer in range(12)])
    assert linear.better == "linear"
    assert linear.linear_slope == pytest.approx(0.2)
    assert linear.ratio == pytest.approx(2.7 / 0.5)
    assert growth_over_depth([1.0, 1.01, 0.99, 1.0]).better == "flat"
    assert growth_over_depth([1.0, 2.0]) is None
    assert growth_over_depth([1.0, 0.0, 2.0]) is None
    assert growth_over_depth([1.0, math.nan, 2.0]) is None


def test_logits_are_read_in_fp32():
    logits, targets = torch.randn(2, 300, 50) * 3, torch.randint(50, (2, 300))
    found = output_logits(logits.bfloat16(), targets)
    rows = logits.bfloat16().double().flatten(0, 1)
    assert found.loss == pytest.approx(float(F.cross_entropy(rows, targets.flatten())), rel=1e-5)
    assert found.std == pytest.approx(float(rows.std(1, correction=0).mean()), rel=1e-5)
    assert found.log_sum_exp == pytest.approx(float(rows.logsumexp(1).mean()), rel=1e-5)
    assert found.max_abs == float(rows.abs().max())
    assert found.ln_vocab == math.log(50)
