"""A pretrained tokenizer of Hugging Face: a local folder, or a name on the hub."""

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from spikeless.data.tokenizers._fast import CONFIG, DEFINITION, FastTokenizer, token_text
from spikeless.errors import SpikelessWarning, UserError
from spikeless.files import read_json
from spikeless.hub import hub_answers

__all__ = ["HuggingFaceTokenizer"]

SPECIAL_TOKENS, TEMPLATE = "special_tokens_map.json", "chat_template.jinja"
VOCABULARY, MERGES, ADDED = "vocab.json", "merges.txt", "added_tokens.json"
"""GPT-2's older form of a definition."""
USUAL_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<EOS>", "[EOS]")
NOT_KEPT = {"tokenizer_class", "auto_map", "spikeless", "name_or_path", "tokenizer_file", "vocab_file", "merges_file"}
"""Fields of their configuration that name their code or their disk."""
SAMPLE = "The quick brown fox jumps over the lazy dog, 0123456789 times."
DEMANDING_SAMPLE = "  Two  spaces, a\ttab,\n\n‘naïve’ Ærø 你好 ½ 🤖 don ' t ."


@dataclass(frozen=True, kw_only=True)
class HuggingFaceTokenizer:
    """A fast tokenizer as it is: a `tokenizer.json`, or the `vocab.json` and `merges.txt` of GPT-2.

    Its other special tokens, chat template and the like go with it into the run folder. No code is run.
    """

    usage: ClassVar[str] = "hf:NAME_OR_DIR"

    name: str

    @property
    def vocab_size(self) -> int:
        """One more than its largest id.

        Raises:
            UserError: as for `build`.
        """
        return self._tokenizer.vocab_size

    def build(self, documents: Callable[[], Iterator[str]], identity: str) -> FastTokenizer:
        """The tokenizer; it learns nothing from the documents.

        Raises:
            UserError: not found, damaged, not a fast tokenizer, without an end-of-text token, or with a
                vocabulary that cannot hold a plain English sentence.

        Warns:
            SpikelessWarning: decoding does not give back every text.
        """
        return self._tokenizer

    @cached_property
    def _tokenizer(self) -> FastTokenizer:
        spec, folder = f"hf:{self.name}", self._folder()
        config = _config(folder)
        definition = _definition(folder, spec, config)
        vocabulary = _vocabulary(definition, spec)
        tokenizer = FastTokenizer(definition, spec, _end_of_text(config, vocabulary, spec, folder), config)
        _refuse_other_ids(vocabulary, tokenizer.token_to_id, spec)
        _refuse_degenerate(tokenizer)
        back = tokenizer.decode(tokenizer.encode(DEMANDING_SAMPLE))
        if back != DEMANDING_SAMPLE:
            message = f"the tokenizer {spec} does not keep every text: {DEMANDING_SAMPLE!r} comes back as {back!r}"
            warnings.warn(message, SpikelessWarning, stacklevel=2)
        return tokenizer

    def _folder(self) -> Path:
        path = Path(os.path.expanduser(self.name))  # noqa: PTH111, which may raise
        if path.name == DEFINITION and path.is_file():
            return path.parent
        if path.is_dir():
            return path
        if path.exists():
            raise UserError(f"hf: {self.name} is a file; name the folder that holds the {DEFINITION}")
        if self.name.startswith((".", "~", "/")) or self.name.count("/") > 1:
            raise UserError(f"hf: {self.name}: there is no such folder in {Path.cwd()}")
        return self._hub_folder()

    def _hub_folder(self) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils import disable_progress_bars

        files = [DEFINITION, CONFIG, SPECIAL_TOKENS, TEMPLATE, VOCABULARY, MERGES, ADDED]
        if not sys.stderr.isatty():
            disable_progress_bars()
        online = hub_answers()
        try:
            folder = snapshot_download(self.name, allow_patterns=files, local_files_only=not online)
        except Exception as error:
            if online:
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise UserError(f"hf: cannot fetch the tokenizer {self.name}: {reason}") from None
            raise UserError(
                f"hf: there is no folder {self.name}, it is not in the Hugging Face cache, and the hub cannot be "
                "reached from here; check the name and the network, or give a local folder"
            ) from None
        return Path(folder)


def _config(folder: Path) -> dict[str, Any]:
    """What to keep of their configuration, with the special tokens that older versions wrote to a second file."""
    kept: dict[str, Any] = {}
    for name in (SPECIAL_TOKENS, CONFIG):
        data = read_json(folder / name) if (folder / name).is_file() else {}
        if not isinstance(data, dict):
            raise UserError(f"{folder / name} is damaged: it is not an object")
        kept |= {key: _plain(value) for key, value in data.items() if value is not None and key not in NOT_KEPT}
    if "chat_template" not in kept and (folder / TEMPLATE).is_file():
        kept["chat_template"] = _text(folder / TEMPLATE)
    return kept


def _plain(value: Any) -> Any:
    """Special tokens as their texts: what else an object says of one is in the definition, and readers differ on it."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return token_text(value) if isinstance(value, dict) and "content" in value else value


def _definition(folder: Path, spec: str, config: dict[str, Any]) -> str:
    if (folder / DEFINITION).is_file():
        return _text(folder / DEFINITION)
    if (folder / VOCABULARY).is_file() and (folder / MERGES).is_file():
        return _from_vocabulary(folder, spec, config)
    remedy = f"write one with AutoTokenizer.from_pretrained(…).save_pretrained(…), or give a folder with a {DEFINITION}"
    slow = "only a slow tokenizer's tokenizer.model" if (folder / "tokenizer.model").is_file() else "no tokenizer"
    raise UserError(f"{spec}: {folder} holds {slow}; {remedy}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"hf: cannot read {path}: {error}") from None


def _from_vocabulary(folder: Path, spec: str, config: dict[str, Any]) -> str:
    """GPT-2's byte-level BPE from `vocab.json` and `merges.txt`."""
    try:
        tokenizer = tokenizers.Tokenizer(models.BPE.from_file(str(folder / VOCABULARY), str(folder / MERGES)))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{spec}: {VOCABULARY} and {MERGES} are no byte-level BPE: {error}") from None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(config.get("add_prefix_space")))
    tokenizer.decoder = decoders.ByteLevel()
    known, added = tokenizer.get_vocab(), read_json(folder / ADDED) if (folder / ADDED).is_file() else {}
    if not isinstance(added, dict) or not all(isinstance(each, int) for each in added.values()):
        raise UserError(f"{folder / ADDED} is damaged: it does not give every token a number")
    special = {*_special_tokens(config), *USUAL_ENDS} & known.keys()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in sorted(special)])
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False) for token in sorted(added, key=lambda each: added[each])]
    )
    _refuse_other_ids(added, tokenizer.token_to_id, spec)
    return tokenizer.to_str()


def _special_tokens(config: dict[str, Any]) -> set[str]:
    named = {token_text(value) for key, value in config.items() if key.endswith("_token")}
    return {token for token in named if token}


def _vocabulary(definition: str, spec: str) -> dict[str, int]:
    """Every token of a definition with the id that the file gives it.

    Raises:
        UserError: it is no definition.
    """
    try:
        data = json.loads(definition)
        model = data["model"]["vocab"]
        pairs = model.items() if isinstance(model, dict) else ((each[0], index) for index, each in enumerate(model))
        vocabulary = dict(pairs)
        added = [(each["content"], each["id"]) for each in data.get("added_tokens") or ()]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise UserError(f"the tokenizer {spec} is not a tokenizer definition that can be read: {error}") from None
    return vocabulary | dict(added)


def _end_of_text(config: dict[str, Any], vocabulary: dict[str, int], spec: str, folder: Path) -> str:
    named = token_text(config.get("eos_token"))
    if named:
        return named
    for usual in USUAL_ENDS:
        if usual in vocabulary:
            return usual
    raise UserError(
        f"{spec}: no end-of-text token: {CONFIG} names no eos_token, and the vocabulary has none of "
        f"{', '.join(USUAL_ENDS)} (special tokens found: {', '.join(sorted(_special_tokens(config))) or 'none'}); "
        f'write one as "eos_token" into {folder / CONFIG}'
    )


def _refuse_other_ids(expected: dict[str, int], token_to_id: Callable[[str], int | None], spec: str) -> None:
    """`tokenizers` numbers added tokens itself, whatever the file says; a checkpoint's rows would not fit them."""
    for token, number in expected.items():
        if token_to_id(token) != number:
            raise UserError(
                f"{spec}: the file gives {token!r} the id {number}, but tokenizers reads it as {token_to_id(token)}; "
                "added tokens must follow the vocabulary without a gap"
            )


def _refuse_degenerate(tokenizer: FastTokenizer) -> None:
    """A vocabulary that failed to load makes nothing, or unknowns, of plain English."""
    back = tokenizer.decode(tokenizer.encode(SAMPLE))
    if _letters(back) != _letters(SAMPLE):
        raise UserError(
            f"the vocabulary of {tokenizer.spec} is degenerate ({tokenizer.vocab_size} ids): of {SAMPLE!r} it makes "
            f"{back!r}; check how its {DEFINITION} was written"
        )


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()
