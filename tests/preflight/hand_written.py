"""Models as users write them, a few steps of training, and factories for `spikeless audit hand_written:NAME`."""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spikeless.diagnostics.anatomy.language_model import LanguageModel

VOCAB, LAYERS, WIDTH, HEADS, CONTEXT = 128, 3, 32, 4, 64


class SelfAttention(nn.Module):
    """Queries, keys and values from one matrix."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.resid_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            each.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for each in self.c_attn(x).split(width, dim=2)
        )
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)
        return self.resid_dropout(self.c_proj(y.transpose(1, 2).contiguous().view(batch, length, width)))


class MLP(nn.Module):
    """Two matrices and a GELU."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.gelu = nn.GELU()
        self.c_proj = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.c_proj(self.gelu(self.c_fc(x))))


class Block(nn.Module):
    """A pre-norm block."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads, dropout)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = MLP(width, dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class NanoGPT(nn.Module):
    """In the style of nanoGPT: a ModuleDict, a tied head, and all logits only where targets are given."""

    def __init__(
        self,
        vocab: int = VOCAB,
        layers: int = LAYERS,
        width: int = WIDTH,
        heads: int = HEADS,
        dropout: float = 0.0,
        block: type[nn.Module] = Block,
    ):
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocab, width),
                "wpe": nn.Embedding(CONTEXT, width),
                "drop": nn.Dropout(dropout),
                "h": nn.ModuleList([block(width, heads, dropout) for _ in range(layers)]),
                "ln_f": nn.LayerNorm(width),
            }
        )
        self.lm_head = nn.Linear(width, vocab, bias=False)
        self.transformer.wte.weight = self.lm_head.weight
        self.apply(self._init_weights)
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers))

    @staticmethod
    def _init_weights(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        positions = torch.arange(idx.shape[1], device=idx.device)
        x = self.transformer.drop(self.transformer.wte(idx) + self.transformer.wpe(positions))
        for block in self.transformer.h:
            x = block(x)
        x = self.transformer.ln_f(x)
        if targets is None:
            return self.lm_head(x[:, [-1], :]), None
        logits = self.lm_head(x)
        return logits, F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))


class EinsumLayer(nn.Module):
    """No submodules at all: weights per head, einsum, functional norms, additions in place."""

    def __init__(self, width: int, heads: int, layers: int):
        super().__init__()
        inner, size, std = 3 * width, width // heads, 0.02

        def drawn(*shape: int, scale: float = std) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape) * scale)

        self.attention_gain = nn.Parameter(torch.ones(width))
        self.w_q = drawn(width, heads, size)
        self.w_k = drawn(width, heads, size)
        self.w_v = drawn(width, heads, size)
        self.w_o = drawn(heads, size, width, scale=std / math.sqrt(2 * layers))
        self.ffn_gain = nn.Parameter(torch.ones(width))
        self.w_gate = drawn(width, inner)
        self.w_up = drawn(width, inner)
        self.w_down = drawn(inner, width, scale=std / math.sqrt(2 * layers))

    def forward(self, x: Tensor) -> Tensor:
        h = F.rms_norm(x, x.shape[-1:], self.attention_gain, 1e-6)
        q, k, v = (torch.einsum("btd,dhe->bhte", h, w) for w in (self.w_q, self.w_k, self.w_v))
        scores = torch.einsum("bhqe,bhke->bhqk", q, k) / math.sqrt(q.shape[-1])
        scores += torch.full(scores.shape[-2:], -math.inf, device=x.device).triu(1)
        y = torch.einsum("bhqk,bhke,hed->bqd", scores.softmax(-1), v, self.w_o)
        y += x
        h = F.rms_norm(y, y.shape[-1:], self.ffn_gain, 1e-6)
        z = (F.silu(h @ self.w_gate) * (h @ self.w_up)) @ self.w_down
        z += y
        return z


class EinsumLM(nn.Module):
    """Blocks in a plain Sequential, a table that is a Parameter, an untied head, no positions but the mask."""

    def __init__(self, vocab: int = VOCAB, layers: int = LAYERS, width: int = WIDTH, heads: int = HEADS):
        super().__init__()
        self.table = nn.Parameter(torch.randn(vocab, width) * 0.02)
        self.layers = nn.Sequential(*(EinsumLayer(width, heads, layers) for _ in range(layers)))
        self.final_gain = nn.Parameter(torch.ones(width))
        self.unembedding = nn.Parameter(torch.randn(width, vocab) * 0.02)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.layers(F.embedding(ids, self.table))
        return F.rms_norm(x, x.shape[-1:], self.final_gain, 1e-6) @ self.unembedding


def text(vocab: int = VOCAB) -> Tensor:
    """Bytes of a file of Python, those from `vocab` on folded back."""
    data = Path(argparse.__file__).read_bytes()
    return torch.tensor(list(data)) % vocab


def windows(ids: Tensor, batch: int, length: int, seed: int) -> Tensor:
    """Token ids [B, T + 1] from random places of a text."""
    starts = torch.randint(len(ids) - length - 1, (batch,), generator=torch.Generator().manual_seed(seed))
    return torch.stack([ids[start : start + length + 1] for start in starts])


def train(model: nn.Module, steps: int = 80, lr: float = 3e-3, vocab: int = VOCAB) -> nn.Module:
    """Steps of AdamW with weight decay on matrices, after a warm-up, on the text above."""
    matrices = [each for each in model.parameters() if each.dim() > 1]
    vectors = [each for each in model.parameters() if each.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)
    ids, lm = text(vocab), LanguageModel(model.train())
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 30) * (1 - 0.9 * step / steps)
        batch = windows(ids, 8, 24, step)
        loss = F.cross_entropy(lm.logits(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model


def well_truncated() -> nn.Module:
    """Cut at three standard deviations."""
    return _truncated(bound=0.06)


def truncated_nowhere() -> nn.Module:
    """Cut at -2 and 2, as `trunc_normal_` does unless told otherwise: at 100 standard deviations (torchtitan#3334)."""
    return _truncated(bound=2.0)


def _truncated(bound: float) -> nn.Module:
    model = NanoGPT()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.trunc_normal_(parameter, std=0.02, a=-bound, b=bound)
    return model


def tied_to_memory() -> nn.Module:
    """The head is replaced and tied after the initialisation, and holds what lay there (torchtitan#2342)."""
    model = NanoGPT()
    model.lm_head.weight = nn.Parameter(torch.empty(VOCAB, WIDTH))
    model.transformer.wte.weight = model.lm_head.weight
    return model


def block_built_later() -> nn.Module:
    """The second block is replaced after the initialisation and keeps what `nn.Linear` draws."""
    model = NanoGPT()
    model.transformer.h[1] = Block(WIDTH, HEADS, 0.0)
    return model
