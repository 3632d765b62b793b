"""Model families, one file each: the parts that make one up, its roles and its Hugging Face form."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

from torch import Tensor

from spikeless.errors import UserError
from spikeless.nn.ffn import FeedForward
from spikeless.nn.transformer import ModelConfig

__all__ = ["Family", "Fields", "their_activation"]

T = TypeVar("T")

_ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu": "relu", "silu": "silu"}
_OUR_ACTIVATIONS = {theirs: ours for ours, theirs in _ACTIVATIONS.items()}
_OUR_ACTIVATIONS |= {"gelu_pytorch_tanh": "gelu_tanh", "swish": "silu"}


def their_activation(ffn: FeedForward) -> str | None:
    """Hugging Face's name of a feed-forward part's activation, or None if the part does not say it."""
    ours = getattr(ffn, "activation", "")
    return _ACTIVATIONS.get(ours, ours) or None


class Family(Protocol):
    """What a file in `models/` gives."""

    architecture: ClassVar[str]
    """The class of `transformers` that has this form."""
    prefix: ClassVar[str]
    """What tensor names begin with; files that were saved from the bare model leave it out."""

    @staticmethod
    def from_hugging_face_config(fields: "Fields") -> ModelConfig:
        """The model that a config.json describes.

        Raises:
            UserError: it describes one that we do not have.
        """
        ...

    @staticmethod
    def hugging_face_config(config: ModelConfig) -> dict[str, Any]:
        """The fields of their config.json that describe a model of plain parts."""
        ...

    @staticmethod
    def from_hugging_face(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        """Our state dict from theirs."""
        ...

    @staticmethod
    def to_hugging_face(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        """Their state dict from ours."""
        ...


class Fields:
    """The fields of a config.json, each taken once; what nobody takes may not change what the model computes.

    Args:
        data: the JSON object.
        where: what error messages call it.
    """

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self._data, self._where = dict(data), where

    def take(self, name: str, kind: type[T], default: T | None = None) -> T:
        """A value of a type; null counts as absent, a whole number is a fine `float`.

        Raises:
            UserError: of another type, or absent without a default.
        """
        value = self._data.pop(name, None)
        value = default if value is None else value
        if kind is float and type(value) is int:
            value = float(value)  # pyright: ignore[reportArgumentType]
        if type(value) is not kind:
            raise UserError(f"{self._where}: {name!r} is {value!r}; a value of type {kind.__name__} is needed")
        return value

    def take_size(self, name: str, default: int | None = None) -> int:
        """A number from 1.

        Raises:
            UserError: not such a number.
        """
        value = self.take(name, int, default)
        if value < 1:
            raise UserError(f"{self._where}: {name!r} is {value}; a whole number from 1 is needed")
        return value

    def take_size_or_none(self, name: str) -> int | None:
        """A number from 1, or None where the field is absent or null."""
        if self._data.get(name) is None:
            self.ignore([name])
            return None
        return self.take_size(name)

    def take_activation(self, name: str, default: str) -> Any:
        """Our name of an activation.

        Raises:
            UserError: we have none of that name.
        """
        theirs = self.take(name, str, default)
        if theirs not in _OUR_ACTIVATIONS:
            self.refuse(name, theirs, " or ".join(_OUR_ACTIVATIONS))
        return _OUR_ACTIVATIONS[theirs]

    def take_rope_theta(self) -> float:
        """The base of rotary positions, in the spelling of any version; 10,000 if it is absent.

        Raises:
            UserError: the rotation is scaled, partial or otherwise not the plain one.
        """
        self.require("rope_scaling", why="scaled rotary positions")
        theta = self.take("rope_theta", float, 10_000.0)
        for name, value in self.take("rope_parameters", dict, {}).items():
            if name == "rope_theta" and type(value) in (int, float):
                theta = float(value)
            elif (name, value) not in (("rope_type", "default"), ("partial_rotary_factor", 1.0)):
                self.refuse(f"rope_parameters.{name}", value, "the plain rotation, rope_type 'default',")
        return theta

    def require(self, name: str, *wanted: Any, why: str = "") -> None:
        """Take a field that must be absent or have one of these values.

        Raises:
            UserError: it has another one.
        """
        value = self._data.pop(name, None)
        if value is not None and value not in wanted:
            self.refuse(name, value, " or ".join(map(repr, wanted)) if wanted else "null", why)

    def refuse(self, name: str, value: Any, right: str, why: str = "") -> None:
        """Say what is not supported, and what would be.

        Raises:
            UserError: always.
        """
        raise UserError(f"{self._where}: {name} = {value!r} is not supported{why and f' ({why})'}; only {right} is")

    def ignore(self, names: Iterable[str]) -> None:
        """Take fields that do not change what the model computes."""
        for name in names:
            self._data.pop(name, None)

    def finish(self) -> None:
        """Refuse what was not taken and is switched on: it may change what the model computes.

        Raises:
            UserError: naming the first such field.
        """
        for name, value in self._data.items():
            if value not in (None, False, 0, "", [], {}):
                raise UserError(
                    f"{self._where}: {name} = {value!r} is not known, so it may change what the model computes; "
                    "if it does not, remove it from the file"
                )
