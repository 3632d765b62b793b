"""How a measurement says how far it is."""

from collections.abc import Callable

__all__ = ["Watch"]

Watch = Callable[[str, int, int], None]
"""Told of progress: what is being measured, how much of it is done, how much there is."""
