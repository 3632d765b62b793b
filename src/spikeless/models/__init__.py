"""Model families, one file each: the parts that make one up, its roles and its Hugging Face form."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

from torch import Tensor

from spikeless.errors import UserError
from spikeless.nn.ffn import FeedForward
from spikeless.nn.transformer import ModelConfig

__all__ = ["Family", "Fields", "their_activation"]

T = TypeVar("T")

_ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu": "relu", "silu": "silu"}
_OUR_ACTIVATIONS = {theirs: ours for ours, theirs in _ACTIVATIONS.items()}
_ROTATION = {  # fields of a rotation that is not scaled, and those that only its scaling would use
    *("rope_type", "type", "factor", "attention_factor", "original_max_position_embeddings"),
    *("low_freq_factor", "high_freq_factor", "finetuned"),
}
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

    def take(self, name: str, kind: type[T], default: T | None = None, *, also: Iterable[str] = ()) -> T:
        """A value of a type; null counts as absent, a whole number is a fine `float`.

        Args:
            name: of the field.
            kind: the type.
            default: stands in for an absent field.
            also: other spellings of it, which must be absent or say the same.

        Raises:
            UserError: of another type, or absent without a default, or contradicted by another spelling.
        """
        value = self._data.pop(name, None)
        value = default if value is None else value
        if kind is float and type(value) is int:
            value = float(value)  # pyright: ignore[reportArgumentType]
        if type(value) is not kind:
            raise UserError(f"{self._where}: {name!r} is {value!r}; a value of type {kind.__name__} is needed")
        for other in also:
            self.require(other, value, why=f"{name} is {value!r}")
        return value

    def take_size(self, name: str, default: int | None = None, *, also: Iterable[str] = ()) -> int:
        """A number from 1.

        Raises:
            UserError: not such a number, or contradicted by another spelling.
        """
        value = self.take(name, int, default, also=also)
        if value < 1:
            raise UserError(f"{self._where}: {name!r} is {value}; a whole number from 1 is needed")
        return value

    def take_size_or_none(self, name: str) -> int | None:
        """A number from 1, or None where the field is absent or null."""
        if self._data.get(name) is None:
            self.ignore([name])
            return None
        return self.take_size(name)

    def take_activation(self, name: str, default: str, *, also: Iterable[str] = ()) -> Any:
        """Our name of an activation.

        Raises:
            UserError: we have none of that name.
        """
        theirs = self.take(name, str, default, also=also)
        if theirs not in _OUR_ACTIVATIONS:
            self.refuse(name, theirs, " or ".join(_OUR_ACTIVATIONS))
        return _OUR_ACTIVATIONS[theirs]

    def take_full_attention(self, context_length: int) -> None:
        """Take the fields of sliding windows, where no token is kept from seeing all before it.

        Raises:
            UserError: some are.
        """
        is_off = self._data.pop("use_sliding_window", None) is False
        for name in ("sliding_window", "attention_chunk_size", "window_size"):
            window = self._data.pop(name, None)
            if window and not is_off and not (isinstance(window, int) and window >= context_length):
                self.refuse(name, window, "null, or at least the context length,", "attention in windows")
        if any(kind != "full_attention" for kind in self.take("layer_types", list, [])):
            self.refuse("layer_types", "…", "'full_attention' everywhere")
        self.ignore(("max_window_layers", "sliding_window_pattern"))

    def take_rope_theta(self) -> float:
        """The base of rotary positions, in the spelling of any version; 10,000 if it is absent.

        Raises:
            UserError: the rotation is scaled, partial or otherwise not the plain one; it has two bases.
        """
        stated = {"rope_theta": theta} if (theta := self._data.pop("rope_theta", None)) is not None else {}
        for field in ("rope_scaling", "rope_parameters"):
            rotation = self.take(field, dict, {})
            kind = rotation.get("rope_type", rotation.get("type", "default"))
            unscaled = rotation.get("factor") == 1 and kind in ("linear", "dynamic", "llama3")
            if rotation and kind != "default" and not unscaled:
                self.refuse(f"{field}.rope_type", kind, "the plain rotation, rope_type 'default',")
            for name, value in rotation.items():
                if name == "rope_theta":
                    stated[f"{field}.rope_theta"] = value
                elif name == "partial_rotary_factor" and value != 1:
                    self.refuse(f"{field}.{name}", value, "1")
                elif name not in _ROTATION:
                    self.refuse(f"{field}.{name}", value, "the plain rotation, rope_type 'default',")
        for name, value in stated.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise UserError(f"{self._where}: {name} is {value!r}; a number above 0 is needed")
        if len({float(value) for value in stated.values()}) > 1:
            listed = ", ".join(f"{name} = {value!r}" for name, value in stated.items())
            raise UserError(f"{self._where}: {listed} contradict each other; keep one")
        return float(next(iter(stated.values()), 10_000.0))

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

    def finish(self, is_harmless: Callable[[str, Any], bool]) -> None:
        """Refuse what was not taken and may change what the model computes.

        Args:
            is_harmless: whether a field of this name and value does not.

        Raises:
            UserError: naming the first such field.
        """
        for name, value in self._data.items():
            if not is_harmless(name, value):
                raise UserError(
                    f"{self._where}: {name} = {value!r} is not known, so it may change what the model computes; "
                    "if it does not, remove it from the file"
                )
