"""The implementation that our tokenizers share: a `tokenizer.json` of Hugging Face `tokenizers`."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tokenizers

from spikeless.errors import UserError
from spikeless.files import content_hash, read_json, write_json, write_text
from spikeless.words import counted

__all__ = ["CONFIG", "DEFINITION", "END_OF_TEXT", "FastTokenizer", "load_fast_tokenizer", "token_text"]

END_OF_TEXT = "<|endoftext|>"
DEFINITION = "tokenizer.json"
CONFIG = "tokenizer_config.json"
GAPS, ROOM = 2, 1 << 16
"""Ids may reach so many times the number of tokens, and so much beyond; arrays are as long as the ids."""
"""Beside the definition; Hugging Face's name, so that `AutoTokenizer` reads the folder too."""


class FastTokenizer:
    """A tokenizer given by the text of its `tokenizer.json`; see the protocol `Tokenizer`.

    It keeps that text, so its fingerprint survives saving and loading under any version of the library.
    Truncation, padding and tokens that the definition adds around a text are switched off.

    Args:
        definition: the text of the `tokenizer.json`.
        spec: the spec that it is made from.
        end_of_text: the token that ends every document.
        config: what else its `tokenizer_config.json` is to say, such as other special tokens.

    Raises:
        UserError: not a tokenizer definition, or the end-of-text token is not in its vocabulary.
    """

    def __init__(
        self,
        definition: str,
        spec: str,
        end_of_text: str = END_OF_TEXT,
        config: Mapping[str, Any] = MappingProxyType({}),
    ):
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(definition)
        except Exception as error:  # the library raises nothing narrower
            raise UserError(f"the tokenizer {spec} is not a tokenizer definition that can be read: {error}") from None
        self._tokenizer.encode_special_tokens = True  # "<|endoftext|>" in a document is text like any other
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._definition, self._end_of_text, self._config = definition, end_of_text, dict(config)
        self.spec = spec
        vocabulary = self._tokenizer.get_vocab()
        self.vocab_size: int = max(vocabulary.values(), default=-1) + 1  # ids may have gaps
        if self.vocab_size > GAPS * len(vocabulary) + ROOM:
            raise UserError(
                f"the tokenizer {spec} has {counted(len(vocabulary), 'token')}, but ids up to {self.vocab_size - 1:,}"
            )
        end = self._tokenizer.token_to_id(end_of_text)
        if end is None:
            raise UserError(f"the tokenizer {spec} has no end-of-text token {end_of_text!r}")
        self.end_of_text: int = end
        probe = f"{end_of_text}a{end_of_text} {end_of_text}"
        self._may_emit_end = end in self._tokenizer.encode(probe, add_special_tokens=False).ids

    def __repr__(self) -> str:
        return f"FastTokenizer({self.spec!r}, vocab_size={self.vocab_size})"

    def encode(self, text: str) -> list[int]:
        """The ids of a text, with no end-of-text id added.

        Raises:
            UserError: one character of the text is the end-of-text token.
        """
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        if not self._may_emit_end or self.end_of_text not in encoding.ids:
            return encoding.ids
        spans = zip(encoding.ids, encoding.offsets, strict=True)
        cuts = [start + 1 for each, (start, _) in spans if each == self.end_of_text]
        pieces = [text[start:stop] for start, stop in pairwise([0, *cuts, len(text)])]
        if text in pieces:
            raise UserError(f"the end-of-text token {self._end_of_text!r} of {self.spec} is text; set another one")
        return [each for piece in pieces for each in self.encode(piece)]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of several texts."""
        batch = [each.ids for each in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        if not self._may_emit_end:
            return batch
        return [self.encode(text) if self.end_of_text in ids else ids for text, ids in zip(texts, batch, strict=True)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; bytes that are not UTF-8 become U+FFFD."""
        return self._tokenizer.decode([int(each) for each in ids], skip_special_tokens=False)

    def token_to_id(self, token: str) -> int | None:
        """The id of a token of the vocabulary, such as a special one; None if there is no such token."""
        return self._tokenizer.token_to_id(token)

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` into a folder.

        Raises:
            UserError: the folder cannot be written to.
        """
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": self._end_of_text,
            "clean_up_tokenization_spaces": False,
            **self._config,
            "spikeless": {"spec": self.spec, "fingerprint": self.fingerprint()},
        }
        write_text(folder / DEFINITION, self._definition)
        write_json(folder / CONFIG, config)

    def fingerprint(self) -> str:
        """Identify it: the hash of its definition."""
        return content_hash(self._definition, self._end_of_text)


def load_fast_tokenizer(path: Path) -> FastTokenizer:
    """Read back what `FastTokenizer.save` wrote, from the folder or its `tokenizer.json`.

    Raises:
        UserError: missing, damaged, or without an end-of-text token.
    """
    path = path / DEFINITION if path.is_dir() else path
    try:
        definition = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the tokenizer {path}: {error}; name a folder with a {DEFINITION}") from None
    config = read_json(path.with_name(CONFIG)) if path.with_name(CONFIG).exists() else {}
    ours = config.get("spikeless", {}) if isinstance(config, dict) else None
    if not isinstance(ours, dict):
        raise UserError(f"{path.with_name(CONFIG)} is damaged: it is not a tokenizer configuration")
    end_of_text = token_text(config.get("eos_token")) or END_OF_TEXT
    kept = {key: value for key, value in config.items() if key != "spikeless"}
    tokenizer = FastTokenizer(definition, ours.get("spec", str(path)), end_of_text, kept)
    if ours.get("fingerprint", tokenizer.fingerprint()) != tokenizer.fingerprint():
        raise UserError(f"{path} is damaged: it is not the tokenizer that {CONFIG} beside it was saved with")
    return tokenizer


def token_text(token: Any) -> str | None:
    """The text of a special token of a `tokenizer_config.json`: a string, or an object with its `content`."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
