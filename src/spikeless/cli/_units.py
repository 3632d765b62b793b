"""Numbers as people say them."""

__all__ = ["duration", "size"]


def size(number: float) -> str:
    """[bytes] in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def duration(seconds: float) -> str:
    """[s] in words."""
    for size, unit in ((86_400 * 365, "years"), (86_400, "days"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds * 1000:.3g} ms"
