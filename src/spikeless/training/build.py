"""From a run's description to the things that compute it."""

from dataclasses import replace

import torch

from spikeless.config import PACKAGE, modules_of
from spikeless.data import PreparedData, refuse_rowless
from spikeless.errors import UserError
from spikeless.init import initialise
from spikeless.nn.boundaries import Joined
from spikeless.nn.transformer import Transformer
from spikeless.run import RunConfig
from spikeless.words import counted

__all__ = ["build_model", "check_buildable", "fill_vocabulary", "refuse_cut_chats"]


def build_model(run: RunConfig, device: torch.device | str) -> Transformer:
    """The run's model with its initial weights, in fp32; on the device "meta" it has shapes only.

    Raises:
        UserError: sizes that make no model, or one that the device has no room for.
    """
    meta = torch.device(device).type == "meta"
    ours = all(each.startswith(f"{PACKAGE}.") for each in modules_of(run.model))
    try:
        with torch.device("meta" if meta or ours else "cpu"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)  # for what a part from elsewhere draws itself
            model = Transformer(run.model)
        if not meta:
            model = model.to_empty(device=device) if ours else model.to(device)
    except RuntimeError as error:
        raise UserError(f"the model cannot be built on {device}: {error}; choose smaller sizes") from None
    if not meta:
        initialise(model, run.init, run.seed, width=run.model.width, num_layers=run.model.num_layers)
    return model


def check_buildable(run: RunConfig) -> None:
    """Build the run with shapes only, whatever its vocabulary will be, so that a mistake is said at once.

    Raises:
        UserError: what is wrong and what would be right.
    """
    run.check()
    build_model(replace(run, model=replace(run.model, vocab_size=run.model.vocab_size or 1)), "meta")


def fill_vocabulary(run: RunConfig, data: PreparedData) -> RunConfig:
    """The run with its vocabulary size resolved.

    A tokenizer may have more tokens than the model has rows, if the data need none of the others.

    Raises:
        UserError: the data hold an id that the model has no row for.
    """
    rows, tokenizer = run.model.vocab_size, data.tokenizer
    if rows is None:
        return replace(run, model=replace(run.model, vocab_size=tokenizer.vocab_size))
    if rows < tokenizer.vocab_size:
        advice = (
            "give a smaller tokenizer or --set model.vocab_size=none"
            if run.init_from is None
            else f"leave it out of the text, or train anew, without {run.init_from}"
        )
        largest = max(data.train.largest, data.validation.largest)
        refuse_rowless(largest, rows, tokenizer, f"the data {run.data.spec}", advice)
    return run


def refuse_cut_chats(run: RunConfig, data: PreparedData) -> None:
    """Stop where the ends of a chat's turns would be taken for the ends of documents.

    Raises:
        UserError: the chat template ends turns with end-of-text, and documents do not see those before them.
    """
    ends = sum(each.train.inner_ends for each in data.sources if each.train.kind == "messages")
    if ends and not isinstance(run.data.boundaries, Joined):
        raise UserError(
            f"the chat template ends {counted(ends, 'turn')} with end-of-text, at which data.boundaries="
            f"{type(run.data.boundaries).__name__} would hide what came before; use data.boundaries=Joined"
        )
