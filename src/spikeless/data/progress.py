"""A progress display that is seen by people only: on standard error, and only where that is a terminal."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import track as rich_track

__all__ = ["meter", "track"]

T = TypeVar("T")

Count = Callable[[int, int, int], None]
"""Told how many documents, bytes of text and tokens came along."""


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Pass `items` on and show how many went by; silent where standard error is not a terminal."""
    console = Console(stderr=True)
    if not console.is_interactive:
        yield from items
        return
    yield from rich_track(items, description, total, console=console, transient=True)


@contextmanager
def meter(description: str) -> Iterator[Count]:
    """Show how much text was encoded, and how fast."""
    counts = {"documents": 0, "bytes": 0, "tokens": 0}
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn(
            "{task.fields[documents]:,} documents · {task.fields[megabytes]:,.1f} MB · {task.fields[tokens]:,} tokens"
        ),
        TextColumn("{task.fields[speed]:.1f} MB/s"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_interactive) as progress:
        task = progress.add_task(description, total=None, documents=0, megabytes=0.0, tokens=0, speed=0.0)

        def count(documents: int, size: int, tokens: int) -> None:
            counts["documents"] += documents
            counts["bytes"] += size
            counts["tokens"] += tokens
            megabytes = counts["bytes"] / 1e6
            elapsed = progress.tasks[task].elapsed or 0.0
            progress.update(
                task,
                documents=counts["documents"],
                megabytes=megabytes,
                tokens=counts["tokens"],
                speed=megabytes / elapsed if elapsed else 0.0,
            )

        yield count
