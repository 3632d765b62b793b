"""The implementation that all tokenizers share: a `tokenizer.json` of Hugging Face `tokenizers`."""

import copy
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tokenizers

from spikeless.data.reading import Reading, SpecialTokens
from spikeless.data.tokenizers._chat import chat_template, render_chat
from spikeless.errors import UserError
from spikeless.files import content_hash, write_json, write_text
from spikeless.words import counted

__all__ = ["CONFIG", "DEFINITION", "END_OF_TEXT", "FastTokenizer"]

END_OF_TEXT = "<|endoftext|>"
DEFINITION = "tokenizer.json"
CONFIG = "tokenizer_config.json"
"""Beside the definition; Hugging Face's name, so that `AutoTokenizer` reads the folder too."""
GAPS, ROOM = 2, 1 << 16
"""Ids may reach so many times the number of tokens, and so much beyond; arrays are as long as the ids."""
DEMANDING_SAMPLE = "  Two  spaces, a\ttab,\n\n‘naïve’ Ærø 你好 ½ 🤖 don ' t ."


class FastTokenizer:
    """A tokenizer given by the text of its `tokenizer.json`; see the protocol `Tokenizer`.

    It keeps that text, so its fingerprint survives saving and loading under any version of the library.
    Truncation, padding and tokens that the definition adds around a text are switched off.

    Args:
        definition: the text of the `tokenizer.json`.
        spec: the spec that it is made from.
        end_of_text: the token that ends every document.
        config: what else its `tokenizer_config.json` is to say, such as other special tokens.
        reading: how it reads documents, where that was recorded; else as the definition says.

    Raises:
        UserError: not a tokenizer definition, or the end-of-text token is not in its vocabulary.
    """

    def __init__(
        self,
        definition: str,
        spec: str,
        end_of_text: str = END_OF_TEXT,
        config: Mapping[str, Any] = MappingProxyType({}),
        reading: Reading | None = None,
    ):
        self.spec, self.definition, self.config = spec, definition, dict(config)
        self._end_of_text, self._readers = end_of_text, {}
        self._tokenizer = self._reader("text")
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
        self.is_recorded = reading is not None
        self.reading: Reading = reading or Reading(
            beginning=self.added_around[0], special_tokens="text" if config.get("split_special_tokens") else "parsed"
        )

    def __repr__(self) -> str:
        return f"FastTokenizer({self.spec!r}, vocab_size={self.vocab_size})"

    def with_reading(self, reading: Reading) -> "FastTokenizer":
        """The same tokenizer, reading documents in another way."""
        other = copy.copy(self)
        other.reading = reading
        return other

    def as_published(self) -> "FastTokenizer":
        """The same tokenizer, reading as transformers does, end-of-text in text too; a recorded reading stays."""
        if self.is_recorded or self.reading.special_tokens == "text":
            return self
        return self.with_reading(replace(self.reading, special_tokens="all"))

    @property
    def added_around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids that the definition itself puts before and after every text."""
        encoded = self._reader("all").encode("a")
        pairs = list(zip(encoded.ids, encoded.special_tokens_mask, strict=True))
        before = tuple(token for token, _ in itertools.takewhile(lambda pair: pair[1], pairs))
        after = [token for token, _ in itertools.takewhile(lambda pair: pair[1], reversed(pairs[len(before) :]))]
        return before, tuple(reversed(after))

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of special tokens that text can spell: the unknown token, which stands for what has no id, is none."""
        unknown = self.special_token("unk")
        added = self._tokenizer.get_added_tokens_decoder().items()
        return frozenset(number for number, token in added if token.special) - {unknown} | {self.end_of_text}

    def special_token(self, kind: str) -> int | None:
        """The id of the token that the configuration calls "bos", "eos", "pad" or so; None if it has none."""
        text = self._end_of_text if kind == "eos" else self.config.get(f"{kind}_token")
        return self.token_to_id(text) if isinstance(text, str) else None

    def encode(self, text: str, special_tokens: SpecialTokens | None = None) -> list[int]:
        """The ids of a text, with nothing before it and no end-of-text id added.

        Args:
            text: to be read.
            special_tokens: how, if not as `reading` says.

        Raises:
            UserError: one character of the text is the end-of-text token, or the tokenizer cannot read it.
        """
        how = special_tokens or self.reading.special_tokens
        encoding = self._encoded(how, [text])[0]
        if how == "all" or self.end_of_text not in encoding.ids:
            return encoding.ids
        spans = zip(encoding.ids, encoding.offsets, strict=True)
        cuts = [start + 1 for each, (start, _) in spans if each == self.end_of_text]
        pieces = [text[start:stop] for start, stop in pairwise([0, *cuts, len(text)])]
        if text in pieces:
            raise UserError(f"the end-of-text token {self._end_of_text!r} of {self.spec} is text; set another one")
        return [each for piece in pieces for each in self.encode(piece, how)]

    def encode_batch(self, texts: Sequence[str], special_tokens: SpecialTokens | None = None) -> list[list[int]]:
        """The ids of several texts; see `encode`."""
        how = special_tokens or self.reading.special_tokens
        batch = [each.ids for each in self._encoded(how, texts, offsets=False)]
        if how == "all" or not self._may_emit_end:
            return batch
        return [
            self.encode(text, how) if self.end_of_text in ids else ids for text, ids in zip(texts, batch, strict=True)
        ]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; bytes that are not UTF-8 become U+FFFD."""
        return self._tokenizer.decode([int(each) for each in ids], skip_special_tokens=False)

    def render_chat(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """A conversation as text, by the tokenizer's chat template, as transformers writes it.

        Encode it with `special_tokens="all"` and put nothing before it: the template writes what belongs there.

        Raises:
            UserError: there is no template, several and none called "default", or it refuses these messages.
        """
        tokens = {key: value for key, value in self.config.items() if key.endswith("_token") and isinstance(value, str)}
        tokens |= {"eos_token": self._end_of_text, **self.config.get("extra_special_tokens", {})}
        return render_chat(chat_template(self.config.get("chat_template"), self.spec), messages, tokens, self.spec)

    def token_to_id(self, token: str) -> int | None:
        """The id of a token of the vocabulary, such as a special one; None if there is no such token."""
        return self._tokenizer.token_to_id(token)

    def id_to_token(self, number: int) -> str | None:
        """The token of an id, as the vocabulary spells it; None if there is no such id."""
        return self._tokenizer.id_to_token(number)

    @property
    def loss(self) -> str | None:
        """What it does to a demanding text, if decoding does not give that back; None if it does."""
        back = self.decode(self.encode(DEMANDING_SAMPLE))
        lost = f"the tokenizer {self.spec} does not keep every text: {DEMANDING_SAMPLE!r} comes back as {back!r}"
        return None if back == DEMANDING_SAMPLE else lost

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` into a folder.

        Raises:
            UserError: the folder cannot be written to.
        """
        splits = json.loads(self.definition).get("pre_tokenizer") or {}
        reading = {"beginning": list(self.reading.beginning), "special_tokens": self.reading.special_tokens}
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": self._end_of_text,
            "clean_up_tokenization_spaces": False,
            **{key: splits[key] for key in ("add_prefix_space",) if key in splits},  # else transformers 4 says no to it
            **self.config,
            "reading": reading,
            "spikeless": {"spec": self.spec, "fingerprint": self.fingerprint()},
        }
        write_text(folder / DEFINITION, self.definition)
        write_json(folder / CONFIG, config)

    def fingerprint(self) -> str:
        """Identify it: the hash of its definition."""
        return content_hash(self.definition, self._end_of_text)

    @cached_property
    def _may_emit_end(self) -> bool:
        """Whether text can come out as end-of-text although it is to stay text: it is no special token, say."""
        probe = f"{self._end_of_text}a{self._end_of_text} {self._end_of_text}"
        return any(self.end_of_text in self._encoded(how, [probe])[0].ids for how in ("text", "parsed"))

    def _encoded(self, how: SpecialTokens, texts: Sequence[str], offsets: bool = True) -> list[tokenizers.Encoding]:
        reader = self._reader(how)
        encode = reader.encode_batch if offsets else reader.encode_batch_fast
        try:
            return encode(list(texts), add_special_tokens=False)
        except Exception as error:  # the library raises nothing narrower, where an unknown token is missing, say
            raise UserError(f"the tokenizer {self.spec} cannot read a text: {error}") from None

    def _reader(self, how: SpecialTokens) -> tokenizers.Tokenizer:
        if how not in self._readers:
            definition = self.definition
            if how == "parsed":  # the library leaves what is special to the text, and finds the rest in it
                data = json.loads(definition)
                for token in data.get("added_tokens", ()):
                    token["special"] = token["content"] == self._end_of_text
                definition = json.dumps(data)
            try:
                reader = tokenizers.Tokenizer.from_str(definition)
            except Exception as error:  # as above
                raise UserError(
                    f"the tokenizer {self.spec} is not a tokenizer definition that can be read: {error}"
                ) from None
            reader.encode_special_tokens = how != "all"
            reader.no_truncation()
            reader.no_padding()
            self._readers[how] = reader
        return self._readers[how]
