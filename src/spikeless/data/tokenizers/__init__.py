"""Tokenizers: how text becomes token ids. One kind per file; the file's name is its name in a spec."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from spikeless.data.reading import Reading, SpecialTokens
from spikeless.data.spec import parse_spec
from spikeless.data.tokenizers._fast import CONFIG, DEFINITION
from spikeless.data.tokenizers._folder import FILES, has_tokenizer, read_tokenizer
from spikeless.data.tokenizers._ids import vocabulary_of

__all__ = [
    "CONFIG",
    "DEFINITION",
    "FILES",
    "Tokenizer",
    "TokenizerRecipe",
    "has_tokenizer",
    "load_tokenizer",
    "parse_tokenizer",
    "vocabulary_of",
]


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back.

    Ours are without loss, `decode(encode(text)) == text`. One that others made may normalise the text (lower
    case, spaces, Unicode forms); it warns when it does.
    """

    @property
    def spec(self) -> str:
        """The spec that it was made from, such as `bpe:2048`."""
        ...

    @property
    def vocab_size(self) -> int:
        """How many ids there are [tokens]."""
        ...

    @property
    def end_of_text(self) -> int:
        """The id that ends every document."""
        ...

    @property
    def reading(self) -> Reading:
        """How it reads documents."""
        ...

    @property
    def is_recorded(self) -> bool:
        """Whether that reading was recorded by whoever trained with it, or is the tokenizer's own."""
        ...

    @property
    def added_around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids that its definition puts before and after every text; documents are read without."""
        ...

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of special tokens that a text can spell, end-of-text among them."""
        ...

    @property
    def loss(self) -> str | None:
        """What it does to a demanding text, if decoding does not give that back; None if it does."""
        ...

    def with_reading(self, reading: Reading) -> Self:
        """The same tokenizer, reading documents in another way."""
        ...

    def as_published(self) -> Self:
        """The same tokenizer, reading as transformers does, for a model of others; a recorded reading stays."""
        ...

    def encode(self, text: str, special_tokens: SpecialTokens | None = None) -> list[int]:
        """The ids of a text, with nothing before it and no end-of-text id added; special tokens as `reading` says."""
        ...

    def encode_batch(self, texts: Sequence[str], special_tokens: SpecialTokens | None = None) -> list[list[int]]:
        """The ids of several texts."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; bytes that are not UTF-8 become U+FFFD."""
        ...

    def render_chat(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """A conversation as text, by its chat template; to be encoded with `special_tokens="all"`, nothing before it.

        Raises:
            UserError: there is no template, or it refuses these messages.
        """
        ...

    def special_token(self, kind: str) -> int | None:
        """The id of its "bos", "eos", "pad" or other named token; None if it has none."""
        ...

    def id_to_token(self, number: int) -> str | None:
        """The token of an id, as the vocabulary spells it; None if there is no such id."""
        ...

    def save(self, folder: Path) -> None:
        """Write it into a folder as JSON, for `load_tokenizer` and for Hugging Face's `AutoTokenizer`."""
        ...

    def fingerprint(self) -> str:
        """Identify it: two tokenizers with one fingerprint give the same ids."""
        ...


@runtime_checkable
class TokenizerRecipe(Protocol):
    """What a tokenizer spec says; a frozen dataclass whose first field takes the REST of the spec."""

    usage: ClassVar[str]
    """How its spec is written."""

    @property
    def vocab_size(self) -> int:
        """Ids that its tokenizer will have, known before it is built."""
        ...

    def build(self, documents: Callable[[], Iterator[str]], identity: str) -> Tokenizer:
        """The tokenizer itself.

        Args:
            documents: streams the training documents, for a tokenizer that learns from them.
            identity: identifies these documents' content.
        """
        ...


def parse_tokenizer(spec: str) -> TokenizerRecipe:
    """The recipe that a spec `NAME[:REST][,key=value]…` names, such as `bpe:2048` or `bytes`.

    Raises:
        UserError: not of this form, an unknown name or key, or a value of the wrong type or size.
    """
    return parse_spec(spec, room="data.tokenizers", what="tokenizer")


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a folder, ours or anybody's, or of its `tokenizer.json`. Only JSON and templates are read.

    Raises:
        UserError: missing, damaged, with ids that contradict each other, or without an end-of-text token.
    """
    return read_tokenizer(path)
