"""Hand-made audit reports: no model is built for them."""

import math
from collections.abc import Callable

import pytest

from spikeless.preflight.findings import Finding, Suggestion
from spikeless.preflight.measurements import (
    AttentionReading,
    BatchReading,
    DeclaredInit,
    GrowthFit,
    Kind,
    LayerReading,
    LearningRateReading,
    LogitsReading,
    MatrixReading,
    Measurements,
    ModelReading,
    Spread,
    SubLayerReading,
    TensorReading,
    TevReading,
    Theory,
    TheorySubLayer,
)
from spikeless.preflight.result import AuditReport


def a_model(num_layers: int, **fields) -> ModelReading:
    return ModelReading(
        **{
            "name": "gpt2_nano",
            "architecture": "gpt2",
            "state": "initial",
            "parameters": 123_532_032,
            "num_layers": num_layers,
            "width": 1024,
            "vocab_size": 50257,
            "tied": True,
        }
        | fields
    )


def a_theory(num_layers: int, kinds: tuple[Kind, ...]) -> Theory:
    subs = tuple(
        TheorySubLayer(
            layer=layer,
            kind=kind,
            shortcut=0.02 * math.sqrt(1 + layer),
            gain=(26 if kind == "ffn" else 9) / (1 + layer),
        )
        for layer in range(num_layers)
        for kind in kinds
    )
    return Theory(
        embedding_std=0.01976,
        embedding_std_with_eps=0.0195,
        first_layer_ffn_gain=25.98,
        first_layer_ffn_gain_with_positions=18.3,
        sub_layers=subs,
        log_gain=sum(math.log1p(each.gain) for each in subs),
    )


def a_matrix(layer: int, role: str, shape: tuple[int, int]) -> MatrixReading:
    gaussian = 0.02 * (math.sqrt(shape[0]) + math.sqrt(shape[1]))
    name = f"blocks.{layer}.{role}.weight"
    return MatrixReading(name=name, role=role, shape=shape, std=0.02, spectral_norm=gaussian * 0.99, gaussian=gaussian)


def a_sub_layer(layer: int, kind: Kind) -> SubLayerReading:
    first = {"ffn": 27.0, "attention": 10.0, "parallel": 31.0}[kind] / (1 + layer)
    low = 0.02 * math.sqrt(1 + layer)
    roles = {"ffn": ("ffn_up", "ffn_down"), "attention": ("attention_out",)}
    return SubLayerReading(
        kind=kind,
        shortcut=Spread(min=0.7 * low, median=low, mean=1.02 * low),
        matrices=tuple(
            a_matrix(layer, role, (1024, 4096)) for role in roles.get(kind, ("attention_out", "ffn_up", "ffn_down"))
        ),
        estimate=1 + first,
        bound=1 + 1.6 * first,
        measured=1 + 0.4 * first,
        heads=None if kind == "ffn" else 1.3,
        note="GELU's Lipschitz constant 1.13",
    )


def a_layer(index: int, kinds: tuple[Kind, ...]) -> LayerReading:
    return LayerReading(
        index=index,
        name=f"transformer.h.{index}",
        form="parallel" if kinds == ("parallel",) else "pre-norm",
        sub_layers=tuple(a_sub_layer(index, kind) for kind in kinds),
        gradient_norm=40.0 * math.exp(-0.2 * index),
        residual_std=0.02 * math.exp(0.1 * index),
        attention=AttentionReading(
            logit_max=0.4 + 0.1 * index,
            entropy=4.9 - 0.03 * index,
            relative_entropy=0.98,
            lowest_head=0.9 - 0.02 * index,
        ),
    )


FINDINGS = (
    Finding(check="tev", code="fine", severity="pass", where="model", message="raw TEV 0.0198"),
    Finding(
        check="shortcut",
        code="small-shortcut",
        severity="fail",
        where="layer 0, ffn",
        message="the first feed-forward layer's gain is 26.0, more than 4",
        value=25.98,
        threshold=4.0,
        why="the paper's stable shapes stay below 1",
        consequence="Gradients of shallow layers are amplified, and the loss spikes at large learning rates.",
        advice="Make the shortcut large.",
        suggestions=(
            Suggestion(
                technique="scaled_embed", quantity="first-layer FFN gain", before=25.98, after=0.82, cost="none"
            ),
            Suggestion(technique="embed_norm", quantity="first-layer FFN gain", before=25.98, after=0.52),
        ),
    ),
    Finding(check="logits", code="fine", severity="pass", where="model", message="initial loss 10.9, ln V 10.8"),
    Finding(
        check="lint",
        code="padded-rows",
        severity="warn",
        where="wte.weight",
        message="47 rows <of> one value & no more",
        consequence="They hold memory.",
        advice="Nothing, if they are padding.",
    ),
)


def a_report(num_layers: int = 24, kinds: tuple[Kind, ...] = ("attention", "ffn"), **fields) -> AuditReport:
    measured = Measurements(
        **{
            "model": a_model(num_layers),
            "batch": BatchReading(source="pydocs", sequences=2, tokens=1024, jacobian_tokens=64),
            "tev": TevReading(
                name="wte.weight",
                mean=0.0198,
                std=0.0004,
                effective_mean=0.0198,
                effective_std=0.0004,
                with_positions_mean=0.028,
                padded_rows=47,
                histogram=(0.1, 0.2, 0.4, 0.2, 0.1),
                edges=(0.018, 0.019, 0.0195, 0.02, 0.0205, 0.0215),
            ),
            "layers": tuple(a_layer(index, kinds) for index in range(num_layers)),
            "tensors": (
                TensorReading(
                    name="wte.weight",
                    role="embedding",
                    layer=None,
                    shape=(50257, 1024),
                    std=0.0198,
                    mean=1e-7,
                    max_abs=0.1,
                    declared=DeclaredInit(written=True, distribution="truncated normal", std=0.02, low=-2.0, high=2.0),
                ),
                TensorReading(
                    name="ln_f.weight",
                    role="norm",
                    layer=None,
                    shape=(1024,),
                    std=0.0,
                    mean=1.0,
                    max_abs=1.0,
                    constant=True,
                    gain_min=1.0,
                    gain_max=1.0,
                ),
            ),
            "logits": LogitsReading(std=0.63, max_abs=3.1, log_sum_exp=11.0, loss=10.95, ln_vocab=10.82),
            "gradient_growth": GrowthFit(log_slope=-0.2, linear_slope=-1.6, better="exponential", ratio=0.01),
            "residual_growth": GrowthFit(log_slope=0.1, linear_slope=0.01, better="exponential", ratio=10.0),
            "learning_rate": LearningRateReading(
                optimizer="adamw",
                eps=1e-8,
                lr=3e-4,
                critical=2e-3,
                sharpness=1e3,
                range_lrs=(1e-5, 1e-4, 1e-3, 1e-2),
                range_losses=(10.9, 10.2, 9.1, math.inf),
                range_limit=1e-2,
            ),
            "theory": a_theory(num_layers, kinds),
            "decayed_roles": ("query", "ffn_up"),
            "seconds": {"anatomy": 0.1, "jacobians": 12.5},
        }
        | fields
    )
    return AuditReport(measured=measured, findings=FINDINGS, score=3.2, command="spikeless audit gpt2_nano")


def a_theory_only_report(num_layers: int = 40) -> AuditReport:
    """As of a shape that is too large to materialise."""
    absent = dict.fromkeys(("batch", "tev", "logits", "gradient_growth", "residual_growth", "learning_rate"))
    return a_report(num_layers, layers=(), tensors=(), decayed_roles=None, **absent)


def a_broken_report() -> AuditReport:
    """As of weights with NaN in layer 5, and without attention's readings in layer 3."""
    layers = list(a_report().measured.layers)
    nan = SubLayerReading(
        kind="ffn",
        shortcut=Spread(min=math.nan, median=math.nan, mean=math.nan),
        matrices=(
            MatrixReading(
                name="w", role="ffn_up", shape=(4, 4), std=math.nan, spectral_norm=math.nan, gaussian=math.inf
            ),
        ),
        estimate=math.nan,
        bound=math.inf,
        measured=math.nan,
    )
    layers[3] = LayerReading(
        index=3, name="h.3", form="unknown", sub_layers=(SubLayerReading(kind="unknown", shortcut=None, matrices=()),)
    )
    layers[5] = LayerReading(
        index=5,
        name="h.5",
        form="pre-norm",
        sub_layers=(layers[5].sub_layers[0], nan),
        gradient_norm=math.inf,
        residual_std=math.nan,
        attention=AttentionReading(
            logit_max=math.inf, entropy=math.nan, relative_entropy=math.nan, lowest_head=math.nan
        ),
    )
    return a_report(
        layers=tuple(layers),
        logits=LogitsReading(std=math.nan, max_abs=math.inf, log_sum_exp=math.nan, loss=math.nan, ln_vocab=10.8),
        tev=TevReading(
            name="wte.weight", mean=math.nan, std=math.nan, histogram=(math.nan,), edges=(math.nan, math.inf)
        ),
        gradient_growth=GrowthFit(log_slope=math.nan, linear_slope=math.nan, better="flat", ratio=math.nan),
        learning_rate=LearningRateReading(
            optimizer="adamw",
            eps=1e-8,
            lr=None,
            critical=0.0,
            sharpness=math.inf,
            descent=False,
            range_lrs=(1e-5, 1e-4),
            range_losses=(math.nan, math.nan),
        ),
    )


def a_mixed_report() -> AuditReport:
    """Some layers parallel, some not; nothing but layers."""
    layers = (a_layer(0, ("parallel",)), a_layer(1, ("attention", "ffn")))
    return AuditReport(measured=Measurements(model=a_model(2), layers=layers), findings=(), score=None)


REPORTS: dict[str, Callable[[], AuditReport]] = {
    "deep": a_report,
    "theory": a_theory_only_report,
    "parallel": lambda: a_report(6, ("parallel",)),
    "broken": a_broken_report,
    "mixed": a_mixed_report,
    "single": lambda: a_report(1),
    "bare": lambda: AuditReport(
        measured=Measurements(model=a_model(0, tied=None, unplaced=("[red]head[/]",))), findings=(), score=math.nan
    ),
}


@pytest.fixture
def audit_report() -> Callable[..., AuditReport]:
    """Makes a 24-layer report, unless other fields are given."""
    return a_report


@pytest.fixture(params=sorted(REPORTS))
def any_report(request) -> AuditReport:
    """One after the other: deep, theory only, parallel blocks, with NaN, mixed, of one layer, bare."""
    return REPORTS[request.param]()


@pytest.fixture
def reports() -> dict[str, AuditReport]:
    return {name: make() for name, make in REPORTS.items()}
