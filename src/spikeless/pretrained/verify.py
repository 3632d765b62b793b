"""Does a written folder compute what the model computes? Asked before it is published."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikeless.data import Tokenizer, load_tokenizer
from spikeless.errors import UserError
from spikeless.nn.transformer import Transformer
from spikeless.pretrained.quiet import quiet
from spikeless.pretrained.read import read_pretrained
from spikeless.words import number

__all__ = ["Agreement", "verify"]

TOKENS = 512  # longest sequence that is compared [tokens]
RELATIVE = 1e-5  # of the largest logit, at least of 1
ROUNDINGS = 10  # times the model's own error in fp32, where that is large: attention scores of hundreds, say
SAMPLES = ("The sea, the sea.", " two  spaces\n\ttab and line", "naïve 日本語 🙂", "x = [1, 23, 456];")


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far the logits of a written folder are from the model's.

    Attributes:
        reader: what loaded the folder.
        difference: largest difference of any logit, both with the weights as they were stored.
        tolerance: what it may be.
        rounding: what storing in fewer bits than fp32 changes in the logits, at most; 0 for fp32.
        tokens: positions compared.
    """

    reader: str
    difference: float
    tolerance: float
    rounding: float
    tokens: int


@torch.no_grad()
def verify(folder: Path, model: Transformer, plain: Transformer, tokenizer: Tokenizer, dtype: torch.dtype) -> Agreement:
    """Load the folder with `transformers`, or with our own reader where that is not installed, and compare.

    Three claims are checked: folding changed no logit; the folder's logits are those of our own code with the same
    stored weights; its tokenizer gives the same ids. Logits are compared in fp32 on tokens drawn with a fixed seed, as
    many as the context takes, up to 512.

    Args:
        folder: the written folder.
        model: as it was trained.
        plain: what `fold` made of it.
        tokenizer: the model's.
        dtype: of the stored weights; ours are rounded to it before the comparison.

    Raises:
        UserError: a difference, of logits beyond 1e-5 of the largest one and beyond ten times what the model's own
            logits are off in fp32.
    """
    config = plain.config
    assert config.vocab_size is not None
    tokens = torch.randint(
        config.vocab_size, (1, min(config.context_length, TOKENS)), generator=torch.Generator().manual_seed(0)
    )
    trained, folded = model(tokens), plain(tokens)
    _compare("folding the techniques into plain weights", trained, folded, model, tokens)
    rounded = model if dtype == torch.float32 else _rounded(plain, dtype)
    ours, loaded = rounded(tokens), _load(folder)
    try:
        tolerance = _compare(
            f"loading the folder with {loaded.name}", ours, theirs := loaded.logits(tokens), rounded, tokens
        )
    except UserError as error:
        raise UserError(f"{error}; {_most_different(folder, plain, dtype)}") from None
    for text in SAMPLES:
        if loaded.encode(text) != [*tokenizer.reading.beginning, *tokenizer.encode(text)]:
            raise UserError(f"nothing was exported: {loaded.name} tokenizes {text!r} otherwise than the run did")
    return Agreement(
        reader=loaded.name,
        difference=_largest(ours - theirs),
        tolerance=tolerance,
        rounding=0.0 if rounded is model else _largest(ours - folded),
        tokens=tokens.shape[1],
    )


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """A folder as somebody reads it."""

    name: str
    logits: Callable[[Tensor], Tensor]
    encode: Callable[[str], list[int]]


def _load(folder: Path) -> _Loaded:
    if find_spec("transformers"):
        return _load_with_transformers(folder)
    model = read_pretrained(folder).build()
    tokenizer = load_tokenizer(folder)
    before = tokenizer.reading.beginning
    return _Loaded(
        name="our own reader (transformers is not installed)",
        logits=model,
        encode=lambda text: [*before, *tokenizer.encode(text)],
    )


def _load_with_transformers(folder: Path) -> _Loaded:
    import transformers

    load: Any = transformers.AutoModelForCausalLM.from_pretrained  # annotated without the report
    with quiet():
        model, report = load(folder, local_files_only=True, output_loading_info=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    name = f"transformers {transformers.__version__}"
    strange = sorted(key for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in report[kind])
    if strange:
        raise UserError(f"nothing was exported: {name} does not take the weight {strange[0]}")
    model = model.float().eval()
    return _Loaded(
        name=name,
        logits=lambda tokens: model(tokens).logits,
        encode=lambda text: tokenizer.encode(text, verbose=False),
    )


def _rounded(plain: Transformer, dtype: torch.dtype) -> Transformer:
    """The model with its weights as they are stored, computing in fp32."""
    rounded = Transformer(plain.config)
    rounded.load_state_dict({name: each.to(dtype).float() for name, each in plain.state_dict().items()})
    return rounded


def _largest(difference: Tensor) -> float:
    return difference.abs().max().item()


def _compare(what: str, ours: Tensor, theirs: Tensor, model: Transformer, tokens: Tensor) -> float:
    """The tolerance that two models' logits keep: 1e-5 of the largest, or what fp32 itself costs, if that is more.

    Raises:
        UserError: they do not.
    """
    difference, tolerance = _largest(ours - theirs), RELATIVE * max(1.0, _largest(ours))
    if not difference <= tolerance:
        exact = copy.deepcopy(model).double()(tokens)
        tolerance = max(tolerance, ROUNDINGS * _largest(ours.double() - exact))
    if not difference <= tolerance:  # also where one is not a number
        raise UserError(
            f"nothing was exported: {what} changes a logit by {number(difference)}; "
            f"rounding explains {number(tolerance)}"
        )
    return tolerance


def _most_different(folder: Path, plain: Transformer, dtype: torch.dtype) -> str:
    """Where to look for the cause of a difference."""
    written = read_pretrained(folder).state
    apart = {name: _largest(each.to(dtype).float() - written[name]) for name, each in plain.state_dict().items()}
    worst = max(apart, key=lambda name: apart[name])
    if apart[worst] == 0:
        return "every tensor was written as it was meant, so the two programs compute differently"
    return f"the tensor {worst} was written wrongly: it is off by {apart[worst]:.3g}"
