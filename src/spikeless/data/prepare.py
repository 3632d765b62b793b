"""From a data spec and a tokenizer spec to token shards, each step cached by what it depends on."""

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

from spikeless.config import from_dict, to_dict
from spikeless.data.cache import cached
from spikeless.data.corpora import parse_corpus
from spikeless.data.documents import Document, Kind, Tally, loss_of, texts_to_learn
from spikeless.data.mixture import Mixture, parse_mixture
from spikeless.data.reading import SpecialTokens, split_reading
from spikeless.data.shard_writer import write_shards
from spikeless.data.shards import FORMAT, MIXTURE, READABLE, Manifest, Shards, Tokens, open_shards, read_manifest
from spikeless.data.split import VALIDATION_FRACTION, Part, Split
from spikeless.data.tokenizers import Tokenizer, load_tokenizer, parse_tokenizer
from spikeless.errors import SpikelessWarning, UserError
from spikeless.files import content_hash, read_json, remove, resumable, write_json

__all__ = [
    "PartRead",
    "PreparedData",
    "SourceRead",
    "check_data",
    "prepare",
    "prepare_folder",
    "prepared_folders",
    "prepared_tokenizer",
]

PREFIX = "shards:"


@dataclass(frozen=True, kw_only=True)
class PartRead:
    """What became of one part of a source; see `ShardedPart`."""

    documents: int
    tokens: int
    bytes: int
    skipped: dict[str, int]
    kind: Kind
    inner_ends: int


@dataclass(frozen=True, kw_only=True)
class SourceRead:
    """What was read of a source.

    Attributes:
        data: its spec.
        selection: what of it was read and what was not, as far as the spec does not say it.
        train: the training part.
        validation: the validation part.
    """

    data: str
    selection: str
    train: PartRead
    validation: PartRead

    @property
    def loss(self) -> str | None:
        """What to warn of; None if little was skipped or repaired."""
        tally = Tally(self.train.skipped) + Tally(self.validation.skipped)
        return loss_of(tally, self.train.documents + self.validation.documents)


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """Tokens to train and validate on, and the tokenizer that they belong to, with the reading that they have.

    Where sources differ in how special tokens were read, it is the tokenizer's own way.
    """

    train: Tokens | Mixture
    validation: Tokens | Mixture
    tokenizer: Tokenizer
    data_hash: str
    """Identifies every token of both parts, in order: equal hashes mean equal data, on any machine."""
    sources: tuple[SourceRead, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Source:
    """One source of a mixture, or the only one."""

    share: Fraction
    spec: str
    origin: Path | Split
    """The folder of its shards if they were prepared before, else its documents."""
    special_tokens: SpecialTokens | None = None
    """How special tokens in its text are read; as the tokenizer says if None."""

    def read_by(self, tokenizer: Tokenizer) -> Tokenizer:
        """The tokenizer, reading this source."""
        special_tokens = self.special_tokens or tokenizer.reading.special_tokens
        return tokenizer.with_reading(replace(tokenizer.reading, special_tokens=special_tokens))


@dataclass(frozen=True, kw_only=True)
class _MixtureFile:
    """What `mixture.json` says."""

    format: int
    data: str
    folders: tuple[str, ...]


def prepare(data: str, tokenizer: str | Tokenizer, *, validation_fraction: float = VALIDATION_FRACTION) -> PreparedData:
    """Read, split and tokenize a corpus, or find it done in the cache; safe for many processes at a time.

    Args:
        data: a data spec, such as `pydocs`, `text:notes/**/*.md`, `shards:DIR`, or `mix:0.7*SPEC+0.3*SPEC`.
        tokenizer: a tokenizer spec, such as `bpe:2048`, or a tokenizer (a run's own, on resume). Shards that were
            prepared before bring theirs, and it must be this one.
        validation_fraction: how much to split off where a corpus brings no validation text [dimensionless].

    Raises:
        UserError: a spec is wrong, the corpus is missing or is not text, shards are damaged or of another tokenizer, or
            the cache cannot be written to.

    Warns:
        SpikelessWarning: a cached result was damaged and is made anew, or much of the data was skipped or repaired.
    """
    sources = _sources(data, validation_fraction)
    built = _tokenizer(tokenizer, sources)
    opened = [_open(source, built) for source in sources]
    if len(opened) == 1:
        (only,) = opened
        train, validation, data_hash = only.train, only.validation, only.manifest.data_hash
    else:
        shares = [source.share for source in sources]
        train = Mixture([each.train for each in opened], shares)
        validation = Mixture([each.validation for each in opened], shares)
        hashes = (f"{source.share} {each.manifest.data_hash}" for source, each in zip(sources, opened, strict=True))
        data_hash = content_hash("mixture", *hashes)
    ways = {each.manifest.reading.special_tokens for each in opened}
    reading = replace(built.reading, special_tokens=ways.pop() if len(ways) == 1 else built.reading.special_tokens)
    read = [_read(each.manifest, source) for source, each in zip(sources, opened, strict=True)]
    return PreparedData(
        train=train,
        validation=validation,
        tokenizer=built.with_reading(reading),
        data_hash=data_hash,
        sources=_told(read),
    )


def prepare_folder(
    data: str, tokenizer: str, folder: Path, *, validation_fraction: float = VALIDATION_FRACTION
) -> tuple[Manifest, ...]:
    """Write the token shards of a data spec into a folder that `shards:FOLDER` reads; goes on where it was killed.

    A mixture's sources are written into folders of their own below it.

    Returns:
        The manifest of each source.

    Raises:
        UserError: as for `prepare`, or the folder exists.

    Warns:
        SpikelessWarning: much of the data was skipped or repaired.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already; choose another --out")
    sources = _sources(data, validation_fraction)
    for source in sources:
        if isinstance(source.origin, Path):
            raise UserError(f"{source.spec} is prepared already; use it as it is, in a mixture too")
    built = _tokenizer(tokenizer, sources)
    if len(sources) == 1:
        _write(sources[0], folder, sources[0].read_by(built), _identity(sources[0]))
        return _manifests(folder)
    names = tuple(str(index) for index in range(len(sources)))
    with resumable(folder) as work:
        for path in work.iterdir():
            if path.name not in {".lock", *names, *(f".{name}.partial" for name in names)}:
                remove(path)
        for name, source in zip(names, sources, strict=True):
            if not _is_finished(source, work / name, source.read_by(built)):
                if (work / name).exists():
                    remove(work / name)
                _write(source, work / name, source.read_by(built), _identity(source))
        write_json(work / MIXTURE, to_dict(_MixtureFile(format=FORMAT, data=data, folders=names)))
    return _manifests(folder)


def _manifests(folder: Path) -> tuple[Manifest, ...]:
    manifests = tuple(read_manifest(each) for each in prepared_folders(folder))
    _told([_read(each) for each in manifests])
    return manifests


def _read(manifest: Manifest, source: _Source | None = None) -> SourceRead:
    """What was read of a source, by its manifest; equal documents of another spec may have been cached before."""
    parts = (manifest.train, manifest.validation)
    train, validation = (
        PartRead(
            documents=each.documents,
            tokens=each.tokens,
            bytes=each.bytes,
            skipped=each.skipped,
            kind=each.kind,
            inner_ends=each.inner_ends,
        )
        for each in parts
    )
    data, selection = manifest.data, manifest.selection
    if source and isinstance(source.origin, Split):
        data, selection = source.spec, source.origin.corpus.selection()
    return SourceRead(data=data, selection=selection, train=train, validation=validation)


def _told(sources: list[SourceRead]) -> tuple[SourceRead, ...]:
    """The sources, with a warning of each of which much was lost."""
    for each in sources:
        if each.loss:
            warnings.warn(f"{each.data}: {each.loss}", SpikelessWarning, stacklevel=3)
    return tuple(sources)


def check_data(data: str) -> None:
    """Stop if a data spec cannot be read; no text is.

    Raises:
        UserError: it names no corpus, or folders that hold no shards.
    """
    _sources(data, VALIDATION_FRACTION)


def prepared_tokenizer(data: str) -> str | None:
    """The tokenizer spec that goes with a data spec's prepared shards; None if it has none.

    Raises:
        UserError: a folder is not one of prepared shards, or is damaged.
    """
    for _, spec in parse_mixture(data):
        if spec.strip().startswith(PREFIX):
            return read_manifest(prepared_folders(_folder_of(spec))[0]).tokenizer
    return None


def _sources(data: str, validation_fraction: float) -> list[_Source]:
    """The sources of a data spec; a prepared mixture counts as its sources."""
    parsed = parse_mixture(data)
    sources = []
    for share, spec in ((share, spec.strip()) for share, spec in parsed):
        if not spec.startswith(PREFIX):
            corpus, special_tokens = split_reading(spec)
            split = Split(corpus=parse_corpus(corpus), validation_fraction=validation_fraction)
            sources.append(_Source(share=share, spec=spec, origin=split, special_tokens=special_tokens))
            continue
        if split_reading(spec)[1]:
            raise UserError(f"{spec}: special_tokens= comes too late for prepared shards; prepare them anew with it")
        folder = _folder_of(spec)
        folders = prepared_folders(folder)
        if len(folders) == 1:
            sources.append(_Source(share=share, spec=spec, origin=folders[0]))
        elif len(parsed) == 1:
            shares = [each for each, _ in parse_mixture(_read_mixture(folder).data)]
            sources += [_Source(share=s, spec=spec, origin=f) for s, f in zip(shares, folders, strict=True)]
        else:
            raise UserError(f"{folder} is a mixture, which cannot be part of another; name its sources: {folder}/0, …")
    return sources


def _folder_of(spec: str) -> Path:
    return Path(os.path.expanduser(spec.strip().removeprefix(PREFIX).strip()))  # noqa: PTH111, which may raise


def prepared_folders(folder: Path) -> list[Path]:
    """The folders of token shards in a folder of `data prepare`: itself, or one for each source of a mixture.

    Raises:
        UserError: it says that it is a mixture, and is none.
    """
    if not (folder / MIXTURE).exists():
        return [folder]
    folders = [folder / name for name in _read_mixture(folder).folders]
    for each in folders:
        if not each.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{each} is a link that leads out of its folder; copy what it leads to")
    return folders


def _read_mixture(folder: Path) -> _MixtureFile:
    path = folder / MIXTURE
    try:
        mixture = from_dict(read_json(path, "format", "data", "folders"), _MixtureFile)
    except UserError as error:
        raise UserError(f"{path} does not describe a mixture: {error.__cause__ or error}") from None
    expected = tuple(str(index) for index in range(len(parse_mixture(mixture.data))))
    if mixture.format not in READABLE or mixture.folders != expected:
        raise UserError(f"{path} does not describe a mixture of format {FORMAT} in the folders {', '.join(expected)}")
    return mixture


def _tokenizer(wanted: str | Tokenizer, sources: list[_Source]) -> Tokenizer:
    """The tokenizer itself, or that of prepared shards, or one that is built from the training documents."""
    if not isinstance(wanted, str):
        return wanted
    splits = []
    for source in sources:
        if isinstance(source.origin, Split):
            splits.append(source.origin)
            continue
        manifest = read_manifest(source.origin)
        if manifest.tokenizer == wanted:
            return load_tokenizer(source.origin)
        same = _unlearnt(wanted)
        if same is None or manifest.tokenizer_fingerprint != same.fingerprint():
            raise UserError(
                f"the shards in {source.origin} were written with the tokenizer {manifest.tokenizer}, "
                f"not with {wanted}; use --tokenizer {manifest.tokenizer}, or prepare them anew"
            )
        return same if same.is_recorded else load_tokenizer(source.origin)  # what a checkpoint was trained with decides
    fingerprints = [split.fingerprint() for split in splits]
    identity = fingerprints[0] if len(splits) == 1 else content_hash("mixture", *fingerprints)

    def documents() -> Iterator[str]:
        """The training documents of one source after another."""
        for split in splits:
            yield from texts_to_learn(split.documents("train"))

    return parse_tokenizer(wanted).build(documents, identity)


def _unlearnt(spec: str) -> Tokenizer | None:
    """A tokenizer that learns nothing; None for one that is learnt from documents."""

    def none() -> Iterator[str]:
        raise _Learns

    try:
        return parse_tokenizer(spec).build(none, "")
    except _Learns:
        return None


class _Learns(Exception):
    """A tokenizer asked for documents."""


def _open(source: _Source, tokenizer: Tokenizer) -> Shards:
    """The shards of a source, from the cache if they were not prepared before."""
    if isinstance(source.origin, Path):
        return open_shards(source.origin, tokenizer)
    tokenizer = source.read_by(tokenizer)
    fingerprint = source.origin.fingerprint()
    key = content_hash(str(FORMAT), fingerprint, tokenizer.fingerprint(), repr(tokenizer.reading))
    build = partial(_write, source, tokenizer=tokenizer, fingerprint=fingerprint)
    return cached("shards", key, build, lambda folder: open_shards(folder, tokenizer, verify=True))


def _write(source: _Source, folder: Path, tokenizer: Tokenizer, fingerprint: str) -> None:
    """Write what has this fingerprint, and nothing else."""
    assert isinstance(source.origin, Split)
    split = source.origin

    def documents(part: Part, tally: Tally) -> Iterator[Document]:
        yield from split.documents(part, tally)
        if part == "validation" and split.fingerprint() != fingerprint:  # it comes last
            raise UserError(
                f"{source.spec}: files changed while they were read; prepare them again when they are at rest"
            )

    write_shards(
        folder, documents, tokenizer, data=source.spec, identity=fingerprint, selection=split.corpus.selection()
    )


def _is_finished(source: _Source, folder: Path, tokenizer: Tokenizer) -> bool:
    """True if a run that was killed had finished this source."""
    try:
        manifest = open_shards(folder, tokenizer, verify=True).manifest
    except UserError:
        return False
    return manifest.documents_hash == _identity(source) and manifest.reading == tokenizer.reading


def _identity(source: _Source) -> str:
    assert isinstance(source.origin, Split)
    return source.origin.fingerprint()
