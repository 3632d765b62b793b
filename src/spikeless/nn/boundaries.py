"""What the documents that share a training window know of each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from spikeless.shapes import Tokens

__all__ = ["Boundaries", "Joined", "Separate", "document_layout"]


class Boundaries(Protocol):
    """Describes how document boundaries inside a window are treated while training and validating."""

    def documents(self, tokens: Tokens, end_of_text: int, beginning: Sequence[int] = ()) -> Tensor | None:
        """The index of each token's document in its window [B, T], or None: the window is one document.

        Args:
            tokens: of the windows.
            end_of_text: the id that closes every document.
            beginning: ids that a text begins with. Token ids and chats may begin without them.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A window is one text: documents see those before them, and positions count through."""

    def documents(self, tokens: Tokens, end_of_text: int, beginning: Sequence[int] = ()) -> None:
        """None."""
        return


@dataclass(frozen=True, kw_only=True)
class Separate:
    """A document sees itself alone, and its positions begin at 0.

    Where the beginning ids follow an end-of-text, the first of them is position 0, even if it is end-of-text too. Else
    the end-of-text that closes a document opens the next one: it is position 0 there and the only thing that the first
    token is predicted from. Both is how generation begins. The tokens decide, not their source, so nothing leaks from
    one document to another in any mixture. The mask is an explicit [B, 1, T, T], for which the attention kernels with
    a plain causal mask cannot be used.
    """

    def documents(self, tokens: Tokens, end_of_text: int, beginning: Sequence[int] = ()) -> Tensor:
        """How many tokens that open a document came so far, this one included."""
        ends, length = tokens == end_of_text, tokens.shape[1]
        if not beginning:
            return ends.cumsum(dim=1)
        first = torch.zeros_like(ends)  # of beginning ids after an end-of-text; the window may cut them short
        first[:, 1:] = ends[:, :-1]
        inside = torch.zeros_like(ends)  # a document: end-of-text that closes one, or is a later one of beginning ids
        for offset, token in enumerate(beginning[:length]):
            first[:, : length - offset] &= tokens[:, offset:] == token
        inside[:, :-1] = first[:, 1:]
        for offset in range(1, min(len(beginning), length)):
            inside[:, offset:] |= first[:, : length - offset]
        return (first | (ends & ~inside)).cumsum(dim=1)


def document_layout(documents: Tensor) -> tuple[Tensor, Tensor]:
    """Positions [B, T] within each document, and the mask [B, 1, T, T]: True where row i may look at column j.

    Args:
        documents: the index of each token's document [B, T], ascending.
    """
    place = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    first = torch.where(begins, place, 0).cummax(dim=1).values
    mask = (documents[:, :, None] == documents[:, None, :]).tril()
    return place - first, mask[:, None]
