"""What is evaluated: a model that scores tokens, and how it reads text."""

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from spikeless.data import Tokenizer, load_tokenizer, parse_tokenizer, refuse_rowless
from spikeless.data.documents import Document
from spikeless.data.encoding import encode_document
from spikeless.data.split import VALIDATION_FRACTION
from spikeless.data.tokenizers.hf import HuggingFaceTokenizer
from spikeless.errors import SpikelessWarning, UserError
from spikeless.evaluation.scorer import ForeignScorer, Scorer, TransformerScorer
from spikeless.pretrained.foreign import context_length_of, load_foreign
from spikeless.pretrained.read import read_config, read_pretrained
from spikeless.training.trained import load_trained
from spikeless.words import counted

__all__ = ["Subject", "load_subject"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model and how text is put to it.

    Attributes:
        scorer: the model.
        tokenizer: its tokenizer; `reading` is how the model was trained to read.
        validation_fraction: how much of a corpus the model's run held out.

    Raises:
        UserError: the model has no row for what documents begin with.
    """

    scorer: Scorer
    tokenizer: Tokenizer
    validation_fraction: float = VALIDATION_FRACTION

    def __post_init__(self) -> None:
        self._check(self.prefix, "what a document begins with")

    @property
    def prefix(self) -> tuple[int, ...]:
        """What a document's first token is predicted from: what documents begin with, else what ends the one before.

        A tokenizer of others that names a bos token and puts it nowhere means that one, as in lm-eval.
        """
        bos = None if self.tokenizer.is_recorded else self.tokenizer.special_token("bos")
        return self.tokenizer.reading.beginning or (self.tokenizer.end_of_text if bos is None else bos,)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without what documents begin with.

        Raises:
            UserError: the model has no row for one of them.
        """
        return self.encode_document(text)[0]

    def encode_document(self, document: Document) -> tuple[list[int], int | None]:
        """The ids of a document, without what documents begin with and the end-of-text behind it, and its bytes.

        The bytes of token ids are not known: None.

        Raises:
            UserError: the model has no row for one of them, or the tokenizer cannot write these messages.
        """
        ids, size = encode_document(document, self.tokenizer)
        where = f"the text {document[:40]!r}{'…' * (len(document) > 40)}" if isinstance(document, str) else "a document"
        self._check(ids, where)
        if not isinstance(document, str):  # they may hold what is put around a text
            before = list(self.prefix)
            ids = ids[len(before) :] if ids[: len(before)] == before else ids
            ids = ids[:-1] if ids[-1:] == [self.tokenizer.end_of_text] else ids
        return ids, size

    def _check(self, ids: Sequence[int], where: str) -> None:
        advice = "give the tokenizer that it was trained with, or leave this out of the text"
        refuse_rowless(max(ids, default=-1), self.scorer.vocab_size, self.tokenizer, where, advice)

    def window_length(self, wanted: int | None) -> int:
        """Most tokens to show the model at once: `wanted`, or its context length if None.

        Raises:
            UserError: less than one, or more than the context length.
        """
        most = self.scorer.context_length
        if wanted is None and most is None:
            raise UserError("config.json does not say how many positions the model has; give --sequence-length")
        if wanted is not None and not 1 <= wanted <= (most or wanted):
            limit = "at least 1 token" if most is None else f"1 to {counted(most, 'token')}"
            raise UserError(f"sequence length {wanted} is out of range; the model takes {limit}")
        return wanted or most or 1


def load_subject(
    path: Path,
    *,
    tokenizer: str | None = None,
    device: torch.device,
    bf16: bool = False,
    trusted: Collection[str] = (),
) -> Subject:
    """A run folder (its newest checkpoint), one checkpoint in it, or a Hugging Face folder.

    GPT-2 and Llama folders are computed by our own code, others by `transformers` where that is installed: from local
    safetensors only, never with code from the folder.

    Args:
        path: the folder.
        tokenizer: a folder with a `tokenizer.json`, that file, or a tokenizer spec; the folder's own if None.
        device: where to compute.
        bf16: compute in bf16; log-probabilities are taken in fp32 all the same.
        trusted: modules outside the package whose parts a run's description may name.

    Raises:
        UserError: no such folder, a damaged one, a model that cannot be computed, or no tokenizer that fits.

    Warns:
        SpikelessWarning: the tokenizer does not keep every text, which flatters bits per byte.
    """
    if not path.is_dir():
        raise UserError(f"{path} is no folder; give a run folder, a checkpoint in it, or a Hugging Face folder")
    if (path / "config.json").exists():
        scorer, folder, fraction = _pretrained(path, device, bf16), path, VALIDATION_FRACTION
    else:
        trained = load_trained(path, trusted=trusted)
        scorer = TransformerScorer(trained.model.to(device), bf16=bf16)
        folder, fraction = trained.folder, trained.run.data.validation_fraction
    chosen = _tokenizer(folder if tokenizer is None else tokenizer).as_published()
    return Subject(scorer=scorer, tokenizer=chosen, validation_fraction=fraction)


def _pretrained(folder: Path, device: torch.device, bf16: bool) -> Scorer:
    try:
        read_config(folder)
    except UserError as not_ours:
        return _foreign(folder, device, bf16, str(not_ours))
    return TransformerScorer(read_pretrained(folder).build().to(device), bf16=bf16)


def _foreign(folder: Path, device: torch.device, bf16: bool, not_ours: str) -> ForeignScorer:
    model = load_foreign(folder, torch.bfloat16 if bf16 else torch.float32, not_ours)
    return ForeignScorer(model.to(device), context_length_of(model))


def _tokenizer(wanted: Path | str) -> Tokenizer:
    if isinstance(wanted, Path) or Path(wanted).exists():
        path = Path(wanted)
        if (path / "config.json").exists():
            try:
                return HuggingFaceTokenizer(name=str(path)).build(lambda: iter(()), "")
            except UserError as error:
                raise UserError(f"{error}; or name another with --tokenizer") from None
        tokenizer = load_tokenizer(path)
        if tokenizer.loss:
            warnings.warn(tokenizer.loss, SpikelessWarning, stacklevel=3)
        return tokenizer

    def none():
        raise UserError(f"the tokenizer {wanted} is learnt from text; give the one that the model was trained with")

    return parse_tokenizer(wanted).build(none, "")
