"""Results kept between runs: built once for all processes, checked when read, rebuilt where damaged."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from spikeless.errors import SpikelessWarning, UserError
from spikeless.files import cache_folder, locked

__all__ = ["cached"]

T = TypeVar("T")


def cached(room: str, key: str, build: Callable[[Path], None], read: Callable[[Path], T]) -> T:
    """What `read` makes of the cached folder `room/key`, which `build` publishes if it is missing or damaged.

    A whole result is read without the lock, so a cache on a read-only disk serves. Processes that miss at
    the same time wait for the one that builds. What a killed process left half-done is swept up.

    Args:
        room: the kind of result, a folder of the cache.
        key: the content identity of everything that the result depends on.
        build: publishes a folder of the given name through `files.aside`.
        read: raises a `UserError` if the folder is damaged.

    Raises:
        UserError: from `build`, or the cache cannot be written to.
    """
    entry = cache_folder() / room / key[:32]
    content = entry / "content"
    if content.exists():
        try:
            return read(content)
        except UserError:
            pass  # looked at again with the lock held: another process may be replacing it right now
    with locked(entry, wait=True):
        if content.exists():
            try:
                return read(content)
            except UserError as error:
                warnings.warn(f"making a damaged cache anew: {error}", SpikelessWarning, stacklevel=2)
                shutil.rmtree(content)
        for leftover in entry.glob(f".{content.name}.*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
        build(content)
        return read(content)
