"""A pretrained tokenizer of Hugging Face: a local folder, or a name on the hub."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from spikeless.data.tokenizers._fast import DEFINITION, FastTokenizer
from spikeless.data.tokenizers._folder import FILES, read_tokenizer
from spikeless.errors import SpikelessWarning, UserError
from spikeless.hub import hub_answers

__all__ = ["HuggingFaceTokenizer"]


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
        tokenizer = read_tokenizer(self._folder(), f"hf:{self.name}")
        if tokenizer.loss:
            warnings.warn(tokenizer.loss, SpikelessWarning, stacklevel=2)
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

        if not sys.stderr.isatty():
            disable_progress_bars()
        online = hub_answers()
        try:
            folder = snapshot_download(self.name, allow_patterns=list(FILES), local_files_only=not online)
        except Exception as error:
            if online:
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise UserError(f"hf: cannot fetch the tokenizer {self.name}: {reason}") from None
            raise UserError(
                f"hf: there is no folder {self.name}, it is not in the Hugging Face cache, and the hub cannot be "
                "reached from here; check the name and the network, or give a local folder"
            ) from None
        return Path(folder)
