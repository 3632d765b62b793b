"""Tensors of a repository on the Hugging Face hub: what is in the local cache, or ranges of its files."""

import re
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from spikeless.errors import UserError
from spikeless.hub import hub_answers
from spikeless.weights.folder import INDEX_SUFFIX, PICKLES, SINGLE, SUFFIX, assemble, open_weights, weights_file
from spikeless.weights.reader import OpenFile, Weights
from spikeless.weights.regular import MissingFile

__all__ = ["HubFile", "is_hub_name", "open_hub"]

NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(@[\w./-]+)?")
CANDIDATES = (SINGLE, f"model{INDEX_SUFFIX}")
BUFFER_BYTES = 1 << 24  # one request each
ANSWER_SECONDS = 30.0


def is_hub_name(name: str) -> bool:
    """True for `NAME`, `OWNER/NAME` and either with `@REVISION`, unless it looks like a file."""
    return bool(NAME.fullmatch(name)) and Path(name).suffix not in (SUFFIX, ".json", *PICKLES)


def open_hub(name: str) -> Weights:
    """The tensors of a repository: from the local cache if they are there, otherwise by ranged requests.

    Only headers are read now; `rows` and `read` fetch no more than the bytes that they return.

    Raises:
        UserError: it is not in the cache and the network is closed, it does not exist, or it holds no safetensors.
    """
    from huggingface_hub import constants

    repository, _, revision = name.partition("@")
    revision = revision or "main"
    cached = _cached(repository, revision)
    if cached is not None:
        return cached
    _refuse_offline(name, constants.HF_HUB_OFFLINE)
    folder = Path(repository)

    def open_file(path: Path) -> HubFile:
        inner = quote(path.relative_to(folder).as_posix())
        return HubFile(path, f"{constants.ENDPOINT}/{repository}/resolve/{quote(revision, safe='')}/{inner}")

    names = [each for each in CANDIDATES if _is_there(folder / each, open_file)]
    if not names:
        raise UserError(f"{name}: neither a path here nor a repository on the hub with {' or '.join(CANDIDATES)}")
    return replace(assemble(folder, weights_file(folder, names, open_file), open_file), buffer_bytes=BUFFER_BYTES)


class HubFile:
    """A file on the hub, read by ranged requests.

    Attributes:
        path: repository and name, for messages.
        size: bytes in it.
    """

    def __init__(self, path: Path, url: str) -> None:
        """Ask for its first byte, and so for its size.

        Raises:
            MissingFile: there is none, or none that this user may know of.
            UserError: the hub refuses or does not answer.
        """
        self.path, self._url, self.size = path, url, 0
        self.read_into(memoryview(bytearray(1)), 0)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on.

        Raises:
            UserError: the hub refuses, breaks off or does not know ranges; nothing but the range is ever fetched.
        """
        if not len(buffer):
            return
        from huggingface_hub.utils import build_hf_headers, get_session

        headers = {
            **build_hf_headers(),
            "Range": f"bytes={offset}-{offset + len(buffer) - 1}",
            "Accept-Encoding": "identity",
        }
        session, done = get_session(), 0
        if not callable(getattr(session, "stream", None)):
            raise UserError(f"{self.path}: ranges of a file on the hub need huggingface-hub 1.0 or newer")
        try:
            with session.stream("GET", self._url, headers=headers, timeout=ANSWER_SECONDS) as answer:
                self._check(answer.status_code)
                self.size = int(answer.headers["Content-Range"].rpartition("/")[2])
                for piece in answer.iter_bytes():
                    piece = piece[: len(buffer) - done]
                    buffer[done : done + len(piece)] = piece
                    done += len(piece)
        except UserError:
            raise
        except Exception as error:  # of the HTTP library, which has no common base with OSError
            raise UserError(f"{self.path}: the hub broke off: {error or type(error).__name__}") from None
        if done < len(buffer):
            raise UserError(f"{self.path}: the hub sent {done:,} bytes of {len(buffer):,}")

    def _check(self, status: int) -> None:
        if status == 404:
            raise MissingFile(f"the hub has no {self.path}")
        if status in (401, 403):
            raise UserError(
                f"{self.path}: the hub refuses access; is the name right, and have you a token (`hf auth login`)?"
            )
        if status != 206:
            raise UserError(f"{self.path}: the hub answered {status} instead of 206, a part of the file")

    def __enter__(self) -> "HubFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open between requests."""


def _is_there(path: Path, open_file: OpenFile) -> bool:
    try:
        with open_file(path):
            return True
    except MissingFile:
        return False


def _cached(repository: str, revision: str) -> Weights | None:
    """What an earlier download left, if all of it is there."""
    from huggingface_hub import try_to_load_from_cache

    for candidate in CANDIDATES:
        found = try_to_load_from_cache(repository, candidate, revision=revision)
        if isinstance(found, str):
            try:
                return open_weights(Path(found).parent)
            except MissingFile:
                return None
    return None


def _refuse_offline(name: str, is_offline: bool) -> None:
    """Fail at once where a request would be tried again and again."""
    if hub_answers():
        return
    where = f"{name}: there is no such path, it is not in the hub's local cache"
    if is_offline:
        raise UserError(f"{where}, and HF_HUB_OFFLINE is set; give a local folder, or allow the network")
    raise UserError(f"{where}, and the Hugging Face hub cannot be reached from here; give a local folder")
