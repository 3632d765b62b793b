"""Crash-safe work on disk: a reader sees the old file or the new one, never a half of either."""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from spikeless.errors import UserError

__all__ = [
    "aside",
    "cache_folder",
    "content_hash",
    "is_locked",
    "locked",
    "portable",
    "read_json",
    "remove",
    "resumable",
    "sha256",
    "sync",
    "write_json",
    "write_text",
]

CHUNK_BYTES = 1 << 20
PATIENCE = 0.2
"""How long a lock is tried for: a reader that asks `is_locked` holds it for an instant [s]."""


def cache_folder() -> Path:
    """Where tokenizers and token shards are kept between runs: $SPIKELESS_CACHE or ~/.cache/spikeless."""
    return Path(os.environ.get("SPIKELESS_CACHE") or Path.home() / ".cache" / "spikeless")


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a file aside, flush it and rename it into place.

    Raises:
        UserError: the disk is full or the folder cannot be written to; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:  # a path need not be Unicode
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def portable(value: Any) -> Any:
    """Nested dicts and lists with what is not finite as the strings "NaN", "Infinity", "-Infinity"."""
    if isinstance(value, dict):
        return {key: portable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [portable(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def write_json(path: Path, data: Any) -> None:
    """Write strict JSON (no NaN) crash-safely; see `write_text`."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, *keys: str) -> Any:
    """Read a JSON file; with `keys`, an object that has them.

    Raises:
        UserError: missing, unreadable, not JSON, or without one of the keys.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None
    lacking = [key for key in keys if not isinstance(data, dict) or key not in data]
    if lacking:
        raise UserError(f"{path} is damaged: it lacks {', '.join(map(repr, lacking))}")
    return data


def _settle(folder: Path) -> None:
    """Flush what is in a folder, and give it the permissions that the user's umask gives: libraries write with 0600."""
    mode = folder.stat().st_mode & 0o777
    for path in sorted(folder.rglob("*")):
        path.chmod(mode if path.is_dir() else mode & 0o666)
        sync(path)
    sync(folder)


@contextlib.contextmanager
def aside(folder: Path) -> Iterator[Path]:
    """A folder to fill that appears as `folder`, whole and flushed, when the block ends well.

    An existing `folder` is kept and the new one discarded: what is published is never overwritten.

    Raises:
        UserError: the disk is full or the parent cannot be written to; nothing is left behind.
    """
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _settle(temporary)
        if not folder.exists():
            temporary.rename(folder)
            sync(folder.parent)
    except OSError as error:
        if error.filename is not None and not Path(error.filename).is_relative_to(folder.parent):
            raise  # what the block itself could not read
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def resumable(folder: Path) -> Iterator[Path]:
    """Like `aside`, for long work: a hidden folder in which the next process finds what a kill or a full disk left.

    Any other error removes it. It is locked, so that two processes never fill it at the same time.

    Raises:
        UserError: `folder` exists, another process is at it, or the disk is full or cannot be written to.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already; choose another folder")
    work = folder.with_name(f".{folder.name}.partial")
    with locked(work):
        try:
            yield work
            _settle(work)
            if folder.exists():
                raise UserError(f"{folder} exists already; choose another folder")
            work.rename(folder)
            (folder / ".lock").unlink()  # not before: another process would begin in the same folder
            sync(folder.parent)
        except OSError as error:
            if error.filename is not None and not Path(error.filename).is_relative_to(folder.parent):
                raise  # what the block itself could not read
            raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
        except Exception as error:
            if not isinstance(error.__cause__, OSError):  # `write_text` could not write
                shutil.rmtree(work, ignore_errors=True)
            raise


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def content_hash(*parts: str | bytes) -> str:
    """The SHA-256 of several texts, each delimited by its length, hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold a folder for this process alone; the lock ends with the process, however it ends.

    Args:
        folder: made if it does not exist; if the block fails before anything is in it, it is removed again.
        wait: wait for another holder instead of refusing.

    Raises:
        UserError: another process holds it, or the folder cannot be written to.
    """
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=-1 if wait else PATIENCE)
    except Timeout:
        raise UserError(f"{folder} is in use by another process; wait for it or choose another folder") from None
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
    try:
        yield
    except BaseException:
        if new and not wait:
            _remove_unused(folder)
        raise
    finally:
        lock.release()


def _remove_unused(folder: Path) -> None:
    """Remove a locked folder in which there is nothing but its lock."""
    with contextlib.suppress(OSError):
        if [path.name for path in folder.iterdir()] == [".lock"]:
            (folder / ".lock").unlink()
            folder.rmdir()


def is_locked(folder: Path) -> bool:
    """True if a process holds the folder; it needs no right to write there, and changes nothing."""
    try:
        descriptor = os.open(folder / ".lock", os.O_RDONLY)
    except OSError:  # never locked, or nothing that we may look at
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # the file system has no locks
        return False
    finally:
        os.close(descriptor)
    return False
