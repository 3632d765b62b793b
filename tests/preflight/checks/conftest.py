"""Hand-made readings of a model's weights, as a healthy initialisation leaves them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from spikeless.preflight.measurements import Measurements, ModelReading, TensorReading

WIDTH, LAYERS, VOCAB = 768, 12, 50304
INNER = 4 * WIDTH
SHAPES = {
    "attention.query": ("query", WIDTH, WIDTH),
    "attention.key": ("key", WIDTH, WIDTH),
    "attention.value": ("value", WIDTH, WIDTH),
    "attention.out": ("attention_out", WIDTH, WIDTH),
    "ffn.gate": ("ffn_gate", INNER, WIDTH),
    "ffn.up": ("ffn_up", INNER, WIDTH),
    "ffn.down": ("ffn_down", WIDTH, INNER),
}


def matrix(name: str, role: str | None, rows: int, columns: int, std: float, layer: int | None = None):
    return TensorReading(
        name=name,
        role=role,
        layer=layer,
        shape=(rows, columns),
        fan_in=columns,
        fan_out=rows,
        std=std,
        mean=0.0,
        max_abs=4.5 * std,
    )


def vector(name: str, role: str, value: float, layer: int | None = None):
    gain = value if role == "norm" and name.endswith("weight") else None
    return TensorReading(
        name=name,
        role=role,
        layer=layer,
        shape=(WIDTH,),
        std=0.0,
        mean=value,
        max_abs=value,
        zeros=float(value == 0),
        constant=True,
        gain_min=gain,
        gain_max=gain,
    )


Std = Callable[[str, int, int, int], float]


def gpt2(role: str, rows: int, columns: int, layer: int) -> float:
    return 0.02 / math.sqrt(2 * LAYERS) if role in ("attention_out", "ffn_down") else 0.02


@pytest.fixture
def weights() -> Callable[..., Measurements]:
    """Makes measurements of a model with GPT-2's initialisation, or with another rule of standard deviations.

    `changes` replaces fields of the tensors whose name contains the key.
    """

    def make(
        std: Std = gpt2,
        *,
        changes: Mapping[str, Mapping[str, object]] | None = None,
        num_layers: int = LAYERS,
        extra: tuple[TensorReading, ...] = (),
        state: str = "initial",
        tied: bool = True,
        **fields,
    ) -> Measurements:
        tensors = [
            matrix("embedding.weight", "token_embedding", VOCAB, WIDTH, 0.02),
            matrix("positions.weight", "position_embedding", 1024, WIDTH, 0.02),
        ]
        for layer in range(num_layers):
            block = f"blocks.{layer}"
            tensors.append(vector(f"{block}.attention_norm.weight", "norm", 1.0, layer))
            tensors.append(vector(f"{block}.attention_norm.bias", "norm", 0.0, layer))
            for name, (role, rows, columns) in SHAPES.items():
                found = std(role, rows, columns, layer)
                tensors.append(matrix(f"{block}.{name}.weight", role, rows, columns, found, layer))
                tensors.append(vector(f"{block}.{name}.bias", "bias", 0.0, layer))
        tensors.append(vector("final_norm.weight", "norm", 1.0))
        if not tied:
            tensors.append(matrix("head.weight", "head", VOCAB, WIDTH, 0.02))
        for part, new in (changes or {}).items():
            assert any(part in each.name for each in tensors), part
            tensors = [replace(each, **new) if part in each.name else each for each in tensors]
        model = ModelReading(
            name="m",
            architecture="a",
            state=state,
            parameters=1,
            num_layers=num_layers,
            width=WIDTH,
            vocab_size=VOCAB,
            tied=tied,
        )
        return Measurements(model=model, tensors=(*tensors, *extra), **fields)

    return make


@pytest.fixture
def judge() -> Callable[..., set[tuple[str, str]]]:
    """Runs a check; gives severity and code of its findings, and sees that each can be acted on."""

    def run(check, measured: Measurements) -> set[tuple[str, str]]:
        found = check(measured)
        assert len({each.key for each in found}) == len(found), "a baseline has to tell them apart"
        for each in found:
            assert each.check == check.__name__
            assert each.message
            if each.severity != "pass":
                assert each.why
                assert each.consequence
                assert each.advice
        return {(each.severity, each.code) for each in found}

    return run
