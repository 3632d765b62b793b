"""The dimension legend, for names with shape suffixes (`scores_BHTT`) and for signatures.

B batch [sequences] · T sequence [tokens] · D width · H query heads · G key/value heads (groups) · K head
dimension · F feed-forward width · R rank · V vocabulary · L layers.

The aliases are plain tensors at run time; the test suite turns them into jaxtyping checks.
"""

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Tokens = Int[Tensor, "B T"]
    Hidden = Float[Tensor, "B T D"]
    Logits = Float[Tensor, "B T V"]
    Rows = Float[Tensor, "... D"]
else:
    try:
        from jaxtyping import Float, Int
    except ImportError:  # the package needs no jaxtyping; its tests do
        Tokens = Hidden = Logits = Rows = Tensor
    else:
        Tokens = Int[Tensor, "B T"]
        Hidden = Float[Tensor, "B T D"]
        Logits = Float[Tensor, "B T V"]
        Rows = Float[Tensor, "... D"]

__all__ = ["Hidden", "Logits", "Rows", "Tokens"]
