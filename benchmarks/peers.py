"""The other side of the training benchmark: GPT-2 as others wrote it, in a bare PyTorch loop."""

import ast
import contextlib
import importlib.util
import io
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
import transformers
from torch import Tensor, nn

__all__ = ["BYTES", "NANOGPT", "Case", "Peer", "bare_step", "peers_of"]

TRANSFORMERS, NANOGPT = "transformers", "nanoGPT"
BYTES = 257
"""Ids that occur, for us as for the peers: the bytes and end-of-text."""
EXPECTED = {"GPT": set(), "GPTConfig": {"block_size", "vocab_size", "n_layer", "n_head", "n_embd", "dropout", "bias"}}
"""The classes of nanoGPT's model.py that are used, and their fields."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A GPT-2, the batch that it is trained on, and how many rounds count."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    batch: int
    length: int
    rounds: int = 3


class Peer(NamedTuple):
    """A model, and its mean loss of a batch."""

    model: nn.Module
    loss: Callable[[Tensor], Tensor]


def peers_of(nanogpt: Path | None) -> Mapping[str, Callable[[Case], Peer]]:
    """Who is measured, by name: transformers, and nanoGPT if the folder of a checkout is given.

    Raises:
        SystemExit: the folder is no checkout of nanoGPT.
    """
    if nanogpt is None:
        return {TRANSFORMERS: _of_transformers}
    module = _nanogpt_in(nanogpt)
    return {TRANSFORMERS: _of_transformers, NANOGPT: lambda case: _of_nanogpt(module, case)}


def bare_step(peer: Peer, case: Case, precision: str) -> Callable[[], None]:
    """A function that does one step of a bare loop."""
    peer.model.train()
    parameters = list(peer.model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), fused=True)
    tokens = torch.randint(BYTES, (case.batch, case.length))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = peer.loss(tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


def _of_transformers(case: Case) -> Peer:
    config = transformers.GPT2Config(
        vocab_size=case.vocabulary,
        n_positions=case.length,
        n_layer=case.layers,
        n_embd=case.width,
        n_head=case.heads,
        resid_pdrop=0,
        embd_pdrop=0,
        attn_pdrop=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = transformers.GPT2LMHeadModel(config)
    return Peer(model, lambda tokens: model(input_ids=tokens, labels=tokens).loss)  # it shifts the labels itself


def _of_nanogpt(module: ModuleType, case: Case) -> Peer:
    config = module.GPTConfig(
        vocab_size=case.vocabulary,
        block_size=case.length,
        n_layer=case.layers,
        n_embd=case.width,
        n_head=case.heads,
        dropout=0.0,
        bias=True,
    )
    with contextlib.redirect_stdout(io.StringIO()):  # it prints how large it is
        model = module.GPT(config)
    return Peer(model, lambda tokens: model(tokens, tokens.roll(-1, 1))[1])


def _nanogpt_in(folder: Path) -> ModuleType:
    """The model.py of a checkout of nanoGPT, imported under a name that nothing else has; read before it is run."""
    path = folder / "model.py"
    try:
        found = {each.name: each for each in ast.parse(path.read_bytes()).body if isinstance(each, ast.ClassDef)}
    except (OSError, SyntaxError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SystemExit(f"{folder} is not a checkout of nanoGPT: its model.py cannot be read: {reason}") from None
    for name, fields in EXPECTED.items():
        if name not in found:
            raise SystemExit(f"{folder} is not a checkout of nanoGPT: its model.py has no class {name}")
        given = {line.target.id for line in found[name].body if isinstance(line, ast.AnnAssign)}
        if missing := sorted(fields - given):
            raise SystemExit(f"{folder} is not a checkout of nanoGPT: its {name} has no field {', '.join(missing)}")
    spec = importlib.util.spec_from_file_location("_nanogpt_of_the_benchmark", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise SystemExit(f"{folder}: nanoGPT's model.py cannot be imported: {error}") from None
    return module
