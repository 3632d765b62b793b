"""What each parameter is for, told from its name: attributes on tensors are lost by sharding and saving."""

import re
from enum import StrEnum

__all__ = ["Role", "role_of"]


class Role(StrEnum):
    """The part a parameter plays; initialisation, weight decay and diagnostics are grouped by it."""

    TOKEN_EMBEDDING = "token_embedding"
    POSITION_EMBEDDING = "position_embedding"
    QUERY = "query"
    KEY = "key"
    VALUE = "value"
    ATTENTION_OUT = "attention_out"
    FFN_UP = "ffn_up"
    FFN_GATE = "ffn_gate"
    FFN_DOWN = "ffn_down"
    HEAD = "head"
    NORM = "norm"
    BIAS = "bias"
    OTHER = "other"

    @property
    def is_matrix(self) -> bool:
        """True for weights that are drawn at random and decayed; False for norms, biases and what has no known role."""
        return self not in (Role.NORM, Role.BIAS, Role.OTHER)

    @property
    def writes_residual(self) -> bool:
        """True for the last matrix of a sub-layer, whose output is added to the residual stream."""
        return self in (Role.ATTENTION_OUT, Role.FFN_DOWN)


# The first pattern that matches decides. A projection that is several tensors (low-rank factors, say)
# keeps its role: everything below `attention.query.` is a query parameter.
_PATTERNS = tuple(
    (re.compile(pattern), role)
    for pattern, role in (
        (r"norm\.(weight|bias)$", Role.NORM),
        (r"(^|\.)bias$", Role.BIAS),
        (r"^embedding\.weight$", Role.TOKEN_EMBEDDING),
        (r"^positions\.weight$", Role.POSITION_EMBEDDING),
        (r"^blocks\.\d+\.attention\.query\.", Role.QUERY),
        (r"^blocks\.\d+\.attention\.key\.", Role.KEY),
        (r"^blocks\.\d+\.attention\.value\.", Role.VALUE),
        (r"^blocks\.\d+\.attention\.out\.", Role.ATTENTION_OUT),
        (r"^blocks\.\d+\.ffn\.up\.", Role.FFN_UP),
        (r"^blocks\.\d+\.ffn\.gate\.", Role.FFN_GATE),
        (r"^blocks\.\d+\.ffn\.down\.", Role.FFN_DOWN),
        (r"^head\.weight$", Role.HEAD),
    )
)


def role_of(name: str, otherwise: Role | None = None) -> Role:
    """The role of a parameter of one of our models.

    Args:
        name: the parameter's.
        otherwise: the role of one whose name no pattern matches, as those of parts from outside the package.

    Raises:
        KeyError: no pattern matches, and `otherwise` is not given; a new part must say what its parameters are.
    """
    for pattern, role in _PATTERNS:
        if pattern.search(name):
            return role
    if otherwise is not None:
        return otherwise
    raise KeyError(f"no role is known for the parameter {name!r}; add a pattern to roles.py")
