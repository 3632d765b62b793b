"""Models and callers that are not as one expects: measured rightly, or said not to be."""

import math

import pytest
import torch
from torch.nn import functional as F

import spikeless

D, V = 32, 64


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = torch.nn.Linear(D, 3 * D), torch.nn.Linear(D, D)

    def forward(self, x):
        q, k, v = (each.unflatten(-1, (4, 8)).transpose(1, 2) for each in self.qkv(x).chunk(3, -1))
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class MLP(torch.nn.Module):
    def __init__(self, activation=F.gelu):
        super().__init__()
        self.up, self.down, self.activation = torch.nn.Linear(D, 4 * D), torch.nn.Linear(4 * D, D), activation

    def forward(self, x):
        return self.down(self.activation(self.up(x)))


class Block(torch.nn.Module):
    def __init__(self, activation=F.gelu):
        super().__init__()
        self.n1, self.n2 = torch.nn.LayerNorm(D), torch.nn.LayerNorm(D)
        self.attn, self.mlp = Attention(), MLP(activation)

    def forward(self, x):
        x = x + self.attn(self.n1(x))
        return x + self.mlp(self.n2(x))


class LM(torch.nn.Module):
    def __init__(self, block=Block, vocab=V, context=64, layers=2):
        super().__init__()
        self.tokens, self.positions = torch.nn.Embedding(vocab, D), torch.nn.Embedding(context, D)
        self.blocks = torch.nn.ModuleList(block() for _ in range(layers))
        self.norm = torch.nn.LayerNorm(D)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.1)

    def enter(self, ids):
        return self.tokens(ids) + self.positions.weight[: ids.shape[1]]

    def forward(self, ids):
        x = self.enter(ids)
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.tokens.weight.T


def audit(model, vocab=V, tokens=25, **options):
    generator = torch.Generator().manual_seed(0)
    return spikeless.audit(model, torch.randint(vocab, (2, tokens), generator=generator), **options).measured


def sub_layers(measured):
    return [each for layer in measured.layers for each in layer.sub_layers]


def test_the_plain_one():
    measured = audit(LM())
    assert measured.model.unplaced == ()
    assert [each.kind for each in sub_layers(measured)] == ["attention", "ffn"] * 2
    assert all(each.measured <= each.bound for each in sub_layers(measured))


@pytest.mark.parametrize(
    "around",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["no_grad", "inference_mode", "autocast"],
)
def test_what_the_caller_has_switched_on_changes_nothing(around):
    torch.manual_seed(0)
    model = LM()
    plain = audit(model)
    with around():
        other = audit(model)
    assert other.learning_rate == plain.learning_rate
    assert other.layers == plain.layers


def test_small_vocabularies_and_contexts():
    assert audit(LM(vocab=5), vocab=5).logits.ln_vocab == pytest.approx(math.log(5))
    assert audit(LM(context=6), tokens=6).batch.jacobian_tokens == 5


def test_buffers_and_random_numbers_are_put_back():
    class Counting(Block):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return super().forward(torch.dropout(x, 0.1, self.training))

    model = LM(Counting).train()
    before = torch.get_rng_state()
    audit(model)
    assert model.blocks[0].calls == 0
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_an_addition_in_place_is_measured_or_said_not_to_be():
    class InPlace(Block):
        def forward(self, x):
            x = x + self.attn(self.n1(x))
            x += self.mlp(self.n2(x.clone()))
            return x

    measured = audit(LM(InPlace))
    assert all(each.measured or each.note for each in sub_layers(measured))


def test_branches_with_different_scales():
    class Parallel(Block):
        def forward(self, x):
            return x + 0.05 * self.attn(self.n1(x)) + 4.0 * self.mlp(self.n1(x))

    measured = audit(LM(Parallel))
    assert [each.kind for each in sub_layers(measured)] == ["parallel"] * 2
    for each in sub_layers(measured):
        assert each.measured <= each.bound < 30 * each.measured


@pytest.mark.parametrize(
    "activation",
    [
        lambda h: F.relu(h) * F.relu(h),
        lambda h: F.gelu(3 * h),
        lambda h: F.layer_norm(F.gelu(h), (4 * D,)),
        F.mish,
        lambda h: 0.5 * (1 + torch.erf((h - 0.707) * 2.5)),
    ],
    ids=["relu2", "scaled", "normed", "mish", "laplace"],
)
def test_no_bound_is_claimed_for_an_activation_that_is_not_known(activation):
    measured = audit(LM(lambda: Block(activation)))
    for each in sub_layers(measured):
        if each.kind == "ffn":
            assert each.bound is None
            assert each.note


def test_a_factor_in_front_of_the_first_matrix():
    class Scaled(Block):
        def forward(self, x):
            x = x + self.attn(self.n1(x))
            return x + self.mlp(4 * self.n2(x))

    assert all(each.bound is None for each in sub_layers(audit(LM(Scaled))) if each.kind == "ffn")


def test_what_follows_the_sum_with_positions():
    class Scaled(LM):
        def enter(self, ids):
            return 3.0 * super().enter(ids)

    class Normed(LM):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.LayerNorm(D)

        def enter(self, ids):
            return self.first(super().enter(ids))

    scaled = audit(Scaled())
    assert scaled.tev.effective_mean == pytest.approx(3 * scaled.tev.mean, rel=1e-5)
    assert scaled.tev.with_positions_mean == pytest.approx(3 * 0.141, rel=0.1)
    normed = audit(Normed())
    assert normed.tev.effective_mean is None
    assert normed.theory is None
    assert any("after positions" in each for each in normed.model.unplaced)


def test_a_norm_with_a_signature_of_its_own():
    class Shifted(torch.nn.LayerNorm):
        def forward(self, x, *, shift):
            return super().forward(x) + shift

    class Own(Block):
        def __init__(self):
            super().__init__()
            self.n1 = Shifted(D)

        def forward(self, x):
            x = x + self.attn(self.n1(x, shift=0.0))
            return x + self.mlp(self.n2(x))

    assert all(each.measured <= each.bound for each in sub_layers(audit(LM(Own))))


def test_masked_keys_are_not_visible():
    class Masked(Block):
        def __init__(self):
            super().__init__()
            self.attn.forward = self.masked

        def masked(self, x):
            q, k, v = (each.unflatten(-1, (4, 8)).transpose(1, 2) for each in self.attn.qkv(x).chunk(3, -1))
            scores = q @ k.transpose(-1, -2) / 8**0.5
            scores = scores + torch.full_like(scores, -1e4).triu(1)
            return self.attn.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    attention = audit(LM(Masked)).layers[0].attention
    assert attention.logit_max < 100
    assert attention.relative_entropy > 0.9


def test_a_weight_that_is_computed():
    class Computed(MLP):
        def forward(self, x):
            return F.linear(F.gelu(F.linear(x, 2 * self.up.weight)), 2 * self.down.weight)

    class Own(Block):
        def __init__(self):
            super().__init__()
            self.mlp = Computed()

    torch.manual_seed(0)
    computed = audit(LM(Own))
    ffn = next(each for each in sub_layers(computed) if each.kind == "ffn")
    assert ffn.measured <= ffn.bound
    assert {matrix.role: matrix.std for matrix in ffn.matrices}["ffn_up"] == pytest.approx(0.2, rel=0.1)
    assert ffn.estimate > ffn.measured
