"""The tokens that an audit looks at: text of the user's, text of this machine, or random ids."""

import itertools
from dataclasses import replace

import torch
from torch import Tensor

from spikeless.data import Sampler, parse_corpus, prepare, refuse_rowless, split_reading
from spikeless.data.encoding import encode_documents
from spikeless.data.mixture import parse_mixture
from spikeless.errors import UserError
from spikeless.preflight.target import Target
from spikeless.words import counted

__all__ = ["read_batches", "wanted_tokens"]

DEFAULT_TOKENS = 512
DEFAULT_SEQUENCES = 2
DEFAULT_TEXT = "pydocs:asyncio+logging"  # 100 kB, read in a second
SEED = 0


def read_batches(
    target: Target, vocab_size: int, count: int, *, data: str | None, sequences: int | None, tokens: int | None
) -> tuple[Tensor, str]:
    """Batches of token ids [count, B, T + 1], and what they are.

    Without `data`: docstrings of this machine where the model has a tokenizer, else uniform random ids. A text that is
    too short for all of them is read again from its beginning.

    Args:
        target: what is audited.
        vocab_size: ids are below this.
        count: batches; the audit looks at the first.
        data: a corpus spec, or "random".
        sequences: B; 2 if not given.
        tokens: T; 512, or the model's context length if that is shorter.

    Raises:
        UserError: sizes out of range, too little text, or ids that the model does not have.
    """
    batch = DEFAULT_SEQUENCES if sequences is None else sequences
    longest = target.context_length
    length = min(DEFAULT_TOKENS, longest or DEFAULT_TOKENS) if tokens is None else tokens
    if batch < 1:
        raise UserError(f"--batch {batch} is out of range; use 1 or more sequences")
    if length < 2 or (longest is not None and length > longest):
        raise UserError(f"--seq {length} is out of range; the model takes 2 to {longest or 'any number of'} tokens")
    if data is None:
        data = "random" if target.tokenizer is None else DEFAULT_TEXT
    if data == "random":
        generator = torch.Generator().manual_seed(SEED)
        return torch.randint(vocab_size, (count, batch, length + 1), generator=generator), "uniform random tokens"
    ids = _text(target, data, count, batch, length)
    largest = int(ids.max())
    if target.tokenizer is not None:
        refuse_rowless(largest, vocab_size, target.tokenizer, f"--data {data}", "leave it out of the text")
    elif largest >= vocab_size:
        raise UserError(
            f"--data {data}: its tokenizer gives the id {largest}, but the model has "
            f"{counted(vocab_size, 'row')}; "
            "give data of the model's own tokenizer"
        )
    return ids, data


def wanted_tokens(tokens: int | None) -> int:
    """T, if the model takes so many."""
    return DEFAULT_TOKENS if tokens is None else tokens


def _text(target: Target, data: str, count: int, batch: int, length: int) -> Tensor:
    if target.tokenizer is None:
        if target.run is None:
            raise UserError(f"--data {data}: {target.name} has no tokenizer; leave --data out for random tokens")
        prepared = prepare(data, target.run.data.tokenizer, validation_fraction=target.run.data.validation_fraction)
        sampler = Sampler(prepared.train, length, SEED)
        read = (sampler.batch(index, batch) for index in range(count))
        return torch.stack([torch.cat((inputs, targets[:, -1:]), 1) for inputs, targets in read])
    if len(parse_mixture(data)) > 1:
        raise UserError(f"--data {data!r} is a mixture; audit one source at a time")
    wanted = batch * (length + 1)
    corpus, special_tokens = split_reading(data)
    tokenizer = target.tokenizer
    if special_tokens:
        tokenizer = tokenizer.with_reading(replace(tokenizer.reading, special_tokens=special_tokens))
    encoded = encode_documents(parse_corpus(corpus).documents(), tokenizer)
    ids = list(itertools.islice(itertools.chain.from_iterable(each.ids.tolist() for each in encoded), count * wanted))
    if len(ids) < wanted:
        raise UserError(
            f"--data {data} holds {counted(len(ids), 'token')}, but "
            f"--batch {batch} times --seq {length} needs {wanted:,}; "
            "use a smaller batch or more text"
        )
    again = itertools.islice(itertools.cycle(ids), count * wanted)
    return torch.tensor(list(again)).view(count, batch, length + 1)
