"""From a data spec and a tokenizer spec to token shards, each step cached by what it depends on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spikeless.data.cache import cached
from spikeless.data.corpora import parse_corpus
from spikeless.data.shards import FORMAT, Shards, Tokens, open_shards, write_shards
from spikeless.data.split import VALIDATION_FRACTION, Part, Split
from spikeless.data.tokenizers import Tokenizer, parse_tokenizer
from spikeless.files import content_hash

__all__ = ["PreparedData", "prepare"]


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """Tokens to train and validate on, and the tokenizer that they belong to."""

    train: Tokens
    validation: Tokens
    tokenizer: Tokenizer
    data_hash: str
    """Identifies every token of both parts, in order: equal hashes mean equal data, on any machine."""


def prepare(data: str, tokenizer: str | Tokenizer, *, validation_fraction: float = VALIDATION_FRACTION) -> PreparedData:
    """Read, split and tokenize a corpus, or find it done in the cache; safe for many processes at a time.

    Args:
        data: a data spec, such as `pydocs` or `text:notes/**/*.md`.
        tokenizer: a tokenizer spec, such as `bpe:2048`, or a tokenizer (a run's own, on resume).
        validation_fraction: how much to split off where the corpus brings no validation text [dimensionless].

    Raises:
        UserError: a spec is wrong, the corpus is missing or is not text, or the cache cannot be written to.

    Warns:
        SpikelessWarning: a cached result was damaged and is made anew.
    """
    recipe = parse_tokenizer(tokenizer) if isinstance(tokenizer, str) else None
    split = Split(corpus=parse_corpus(data), validation_fraction=validation_fraction)
    identity = split.fingerprint()
    built = recipe.build(lambda: split.documents("train"), identity) if recipe else tokenizer
    assert not isinstance(built, str)

    def publish(folder: Path) -> None:
        parts: dict[Part, Iterator[str]] = {"train": split.documents("train")}
        parts["validation"] = split.documents("validation")
        write_shards(folder, parts, built, data=data)

    def read(folder: Path) -> Shards:
        return open_shards(folder, built, verify=True)

    shards = cached("shards", content_hash(str(FORMAT), identity, built.fingerprint()), publish, read)
    return PreparedData(
        train=shards.train,
        validation=shards.validation,
        tokenizer=built,
        data_hash=shards.manifest.data_hash,
    )
