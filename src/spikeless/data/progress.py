"""A progress display that is seen by people only: on standard error, and only where that is a terminal."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

__all__ = ["track"]

T = TypeVar("T")


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Pass `items` on and show how many went by; silent where standard error is not a terminal."""
    console = Console(stderr=True)
    if not console.is_interactive:
        yield from items
        return
    yield from rich_track(items, description, total, console=console, transient=True)
