"""One token per byte: nothing to learn, nothing to download."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from spikeless.data.tokenizers._fast import END_OF_TEXT, FastTokenizer

__all__ = ["Bytes"]


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """The 256 bytes, each its own id, and end-of-text: 257 ids."""

    usage: ClassVar[str] = "bytes"
    vocab_size: ClassVar[int] = 257

    def build(self, documents: Callable[[], Iterator[str]], identity: str) -> FastTokenizer:
        """The tokenizer; it learns nothing from the documents."""
        model = models.BPE(vocab={character: byte for byte, character in enumerate(_alphabet())}, merges=[])
        tokenizer = tokenizers.Tokenizer(model)
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([END_OF_TEXT])
        return FastTokenizer(tokenizer.to_str(), spec="bytes")


def _alphabet() -> list[str]:
    """The visible character that stands for each byte in a `tokenizer.json`, in the order of the bytes."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in visible else chr(next(others)) for byte in range(256)]
