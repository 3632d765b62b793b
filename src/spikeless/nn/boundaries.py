"""What the documents that share a training window know of each other."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from spikeless.shapes import Tokens

__all__ = ["Boundaries", "Joined", "Separate", "document_layout"]


class Boundaries(Protocol):
    """Describes how document boundaries inside a window are treated while training and validating."""

    def documents(self, tokens: Tokens, end_of_text: int, begins: bool = False) -> Tensor | None:
        """The index of each token's document in its window [B, T], or None: the window is one document.

        Args:
            tokens: of the windows.
            end_of_text: the id that closes every document.
            begins: documents begin with a token of their own.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A window is one text: documents see those before them, and positions count through."""

    def documents(self, tokens: Tokens, end_of_text: int, begins: bool = False) -> None:
        """None."""
        return


@dataclass(frozen=True, kw_only=True)
class Separate:
    """A document sees itself alone, and its positions begin at 0.

    Where documents begin with a token of their own, that is position 0. Else the end-of-text token that closes a
    document opens the next one: it is position 0 there and the only thing that the first token is predicted from. Both
    is how generation begins. So nothing at all leaks from one document to another. The
    mask is an explicit [B, 1, T, T], for which the attention kernels with a plain causal mask cannot be used.
    """

    def documents(self, tokens: Tokens, end_of_text: int, begins: bool = False) -> Tensor:
        """How many end-of-text tokens came so far, this one included if it opens the next document."""
        ends = tokens == end_of_text
        return ends.cumsum(dim=1) - ends.long() if begins else ends.cumsum(dim=1)


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
