"""What an audit measured: numbers and names only, so that checks and pages need no model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "AttentionReading",
    "BatchReading",
    "GrowthFit",
    "LayerReading",
    "LearningRateReading",
    "LogitsReading",
    "MatrixReading",
    "Measurements",
    "ModelReading",
    "Spread",
    "SubLayerReading",
    "TensorReading",
    "TevReading",
    "Theory",
    "TheorySubLayer",
]

Kind = Literal["attention", "ffn", "parallel", "unknown"]
Form = Literal["pre-norm", "sandwich", "parallel", "post-norm", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A quantity over the tokens of the batch."""

    min: float
    median: float
    mean: float


@dataclass(frozen=True, kw_only=True)
class ModelReading:
    """What was audited.

    Attributes:
        name: as the user gave it.
        architecture: the class or family.
        state: "initial" or "trained": what the checks on initial weights and the initial loss are applied to.
        parameters: numbers in it.
        num_layers: blocks.
        width: D.
        vocab_size: rows of the input embedding.
        tied: the head is the input embedding; None if no head was found.
        techniques: applied with --with.
        unplaced: what the anatomy could not place, and how the user can tell it.
    """

    name: str
    architecture: str
    state: Literal["initial", "trained"]
    parameters: int
    num_layers: int
    width: int
    vocab_size: int
    tied: bool | None
    techniques: tuple[str, ...] = ()
    unplaced: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BatchReading:
    """The tokens that the activations come from.

    Attributes:
        source: what they are.
        sequences: B.
        tokens: of all sequences together.
        jacobian_tokens: of the one sequence at which Jacobians are measured.
    """

    source: str
    sequences: int
    tokens: int
    jacobian_tokens: int


@dataclass(frozen=True, kw_only=True)
class MatrixReading:
    """A matrix (or a product of low-rank factors) of a sub-layer.

    Attributes:
        name: its parameter, or its factors joined by " @ ".
        role: query, key, value, attention_out, ffn_up, ffn_gate, ffn_down.
        shape: [d_out, d_in].
        std: of its entries, population.
        spectral_norm: exact (Lanczos); None with --theory-only.
        gaussian: sigma (sqrt(d_out) + sqrt(d_in)), the estimate for independent entries.
    """

    name: str
    role: str
    shape: tuple[int, int]
    std: float
    spectral_norm: float | None
    gaussian: float


@dataclass(frozen=True, kw_only=True)
class SubLayerReading:
    """One sub-layer: the map from the vector that enters its norm to the vector that leaves its addition.

    Attributes:
        kind: what it computes.
        shortcut: std over D of the vector that enters the norm, per token.
        matrices: by role.
        estimate: formula (15) or (20) with Gaussian spectral norms and the median shortcut; None if there is none.
        bound: with exact spectral norms and the smallest shortcut; None where none is claimed.
        measured: spectral norm of the full Jacobian at real activations.
        heads: spectral norm of J^Z, of the concatenated heads with respect to the norm's output; attention only.
        note: what the bound assumes, or why none is claimed.
    """

    kind: Kind
    shortcut: Spread | None
    matrices: tuple[MatrixReading, ...]
    estimate: float | None = None
    bound: float | None = None
    measured: float | None = None
    heads: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class AttentionReading:
    """Attention of one layer over the batch.

    Attributes:
        logit_max: largest |logit| before the softmax.
        entropy: mean over heads and queries [nats].
        relative_entropy: mean of the entropy over the log of the number of visible keys, of queries with two
            and more [0, 1].
        lowest_head: the smallest relative entropy of a head [0, 1].
    """

    logit_max: float
    entropy: float
    relative_entropy: float
    lowest_head: float


@dataclass(frozen=True, kw_only=True)
class LayerReading:
    """One block.

    Attributes:
        index: from 0.
        name: module path.
        form: where norms and shortcut stand.
        sub_layers: in order.
        gradient_norm: Frobenius norm of the loss's gradient with respect to the block's input.
        residual_std: square root of the mean over tokens of the variance over D of the block's input.
        attention: None if no softmax was seen.
    """

    index: int
    name: str
    form: Form
    sub_layers: tuple[SubLayerReading, ...]
    gradient_norm: float | None = None
    residual_std: float | None = None
    attention: AttentionReading | None = None


@dataclass(frozen=True, kw_only=True)
class GrowthFit:
    """A quantity over depth, fitted as exponential and as linear.

    Attributes:
        log_slope: d log q / d layer of the exponential fit.
        linear_slope: d q / d layer of the linear fit.
        better: the fit with the smaller squared error, or "flat" if the quantity changes by less than 10 %.
        ratio: last layer over first; of a gradient its inverse is shallow over deep.
    """

    log_slope: float
    linear_slope: float
    better: Literal["exponential", "linear", "flat"]
    ratio: float


@dataclass(frozen=True, kw_only=True)
class LogitsReading:
    """The head's output and the loss.

    Attributes:
        std: of the logits over the vocabulary, mean over tokens.
        max_abs: largest |logit|.
        log_sum_exp: mean over tokens [nats].
        loss: mean cross-entropy of the next token [nats/token].
        ln_vocab: ln V, the loss of a uniform guess [nats/token].
    """

    std: float
    max_abs: float
    log_sum_exp: float
    loss: float
    ln_vocab: float


@dataclass(frozen=True, kw_only=True)
class TevReading:
    """Token embedding variability of the input embedding.

    Attributes:
        name: the parameter.
        mean, std: raw, over all rows.
        effective_mean, effective_std: of what enters the residual stream, without positions; None if not known.
        with_positions_mean: sqrt(mean_t Var_D(e_i + p_t)); None where positions are no vectors.
        entry: what a row goes through, in words.
        padded_rows: rows of one single value, as padding leaves them.
        histogram: share of the rows in equal bins of effective (else raw) TEV.
        edges: the bins' edges, one more than bins.
    """

    name: str
    mean: float
    std: float
    effective_mean: float | None = None
    effective_std: float | None = None
    with_positions_mean: float | None = None
    entry: str = "none"
    padded_rows: int = 0
    histogram: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TensorReading:
    """A parameter, as the lint sees it.

    Attributes:
        name: in the model.
        role: a value of `roles.Role`, or None if the anatomy did not place it.
        layer: of the block it is in, or None.
        shape: as stored.
        fan_in, fan_out: of a matrix, whatever its layout; 0 for vectors.
        std, mean, max_abs: over the finite entries, fp64 accumulation.
        finite: share of finite entries.
        zeros: share of exact zeros.
        constant: all entries equal, a single number excepted.
        gain_min, gain_max: effective gain of a norm (of 1 + w where the norm adds one), else None.
        declared: how the code that built the model wrote it, where that was watched.
        gradient_rms: root mean square of its gradient on the batch, None if there was no backward pass.
    """

    name: str
    role: str | None
    layer: int | None
    shape: tuple[int, ...]
    fan_in: int = 0
    fan_out: int = 0
    std: float
    mean: float
    max_abs: float
    finite: float = 1.0
    zeros: float = 0.0
    constant: bool = False
    gain_min: float | None = None
    gain_max: float | None = None
    declared: "DeclaredInit | None" = None
    gradient_rms: float | None = None


@dataclass(frozen=True, kw_only=True)
class DeclaredInit:
    """How a parameter got its first values, as the in-place writes on it tell.

    Attributes:
        written: False if nothing ever wrote to the memory it was given.
        distribution: "normal", "uniform", "truncated normal", "constant", "copied" or "".
        std, mean: that it should have, None if not known; of a truncated normal, after the cut.
        low, high: where a truncated normal was cut, from its mean, in units of its std before the cut.
    """

    written: bool
    distribution: str = ""
    std: float | None = None
    mean: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class LearningRateReading:
    """What the first update tolerates.

    Attributes:
        optimizer: its name.
        eps: Adam's.
        lr: that the user plans, None if not said.
        critical: eta_c, the learning rate from which the first update makes the batch's loss larger.
        sharpness: 2 / eta_c, critical sharpness.
        descent: False if the update is no descent direction; critical is then 0 and sharpness infinite.
        feature_change: relative change of the last block's normalised output per unit of learning rate, along the
            first update [1/learning rate].
        range_lrs, range_losses: of the learning-rate range test, if one was asked for.
        range_limit: the learning rate at which it blew up; None if it did not.
        range_rise: the first learning rate that raised its averaged loss by 0.2 nats; None if none did.
    """

    optimizer: str
    eps: float
    lr: float | None
    critical: float
    sharpness: float
    descent: bool = True
    feature_change: float | None = None
    range_lrs: tuple[float, ...] = ()
    range_losses: tuple[float, ...] = ()
    range_limit: float | None = None
    range_rise: float | None = None


@dataclass(frozen=True, kw_only=True)
class TheorySubLayer:
    """Theory of one sub-layer, from standard deviations alone.

    Attributes:
        layer: from 0.
        kind: what it computes.
        shortcut: predicted std of the vector that enters its norm.
        gain: the term beside 1 in (15) or (20).
    """

    layer: int
    kind: Kind
    shortcut: float
    gain: float


@dataclass(frozen=True, kw_only=True)
class Theory:
    """Formulas (15) and (20) from the standard deviations of the initialisation; no activations.

    Attributes:
        embedding_std: of the vector of a token that enters the residual stream, without positions.
        embedding_std_with_eps: the same with the epsilon of a norm behind the embedding.
        first_layer_ffn_gain: sigma1 sigma2 C_ffn / sigma_x with sigma_x the token embedding alone.
        first_layer_ffn_gain_with_positions: with positions and the first attention's output in sigma_x.
        sub_layers: all, in order.
        log_gain: sum over the sub-layers of log(1 + gain) [nats]: the bound (7) on gradient growth, logarithmic.
    """

    embedding_std: float
    embedding_std_with_eps: float
    first_layer_ffn_gain: float | None
    first_layer_ffn_gain_with_positions: float | None
    sub_layers: tuple[TheorySubLayer, ...]
    log_gain: float


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Everything that the checks look at."""

    model: ModelReading
    batch: BatchReading | None = None
    tev: TevReading | None = None
    layers: tuple[LayerReading, ...] = ()
    tensors: tuple[TensorReading, ...] = ()
    logits: LogitsReading | None = None
    gradient_growth: GrowthFit | None = None
    residual_growth: GrowthFit | None = None
    learning_rate: LearningRateReading | None = None
    theory: Theory | None = None
    decayed_roles: tuple[str, ...] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
