"""Theory of a model at initialisation: formulas (15) and (20) from sizes and standard deviations, no activations.

Everything is an estimate for wide models with independent Gaussian weights and independent tokens. The standard
deviation of the shortcut is carried through the layers by a mean-field recursion (`_mean_field.py`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy

from spikeless.nn.projection import spectral_norm_of_gaussian
from spikeless.preflight._mean_field import (
    Kernel,
    Positions,
    attend,
    causal_norm,
    feed_forward,
    normalise,
    second_moments,
)
from spikeless.preflight.measurements import Theory, TheorySubLayer

__all__ = ["MatrixStrength", "Strengths", "SubLayerStrengths", "attention_norm", "ffn_norm", "theory"]


@dataclass(frozen=True, kw_only=True)
class MatrixStrength:
    """A matrix [d_out, d_in] at initialisation.

    Attributes:
        std: of its entries; of the product's entries for a low-rank product.
        spectral: its expected spectral norm, where that is not the one of independent entries.
    """

    std: float
    d_out: int
    d_in: int
    spectral: float | None = None

    @property
    def norm(self) -> float:
        """Expected spectral norm: sigma (sqrt(d_out) + sqrt(d_in)), or what is known."""
        gaussian = self.std * spectral_norm_of_gaussian(self.d_out, self.d_in)
        return gaussian if self.spectral is None else self.spectral

    @property
    def variance(self) -> float:
        """Variance of an output entry for an input whose entries have variance one: d_in sigma^2."""
        return self.d_in * self.std**2


@dataclass(frozen=True, kw_only=True)
class SubLayerStrengths:
    """A sub-layer at initialisation.

    Attributes:
        kind: "parallel" is attention and feed-forward side by side behind one shortcut.
        matrices: by role (query, key, value, attention_out, ffn_up, ffn_gate, ffn_down).
        activation: of the feed-forward part, by our name or that of transformers.
        norm_gain: weight of the norm in front.
        norm_eps: its epsilon.
        scale: of the branch where it joins the stream.
        output_norm: gain of a norm behind the branch (sandwich); None if there is none.
        logit_variance: of the attention logits; None means D^2 sigma_Q^2 sigma_K^2 g^4. 1 with a norm on queries and
            keys.
    """

    kind: Literal["attention", "ffn", "parallel"]
    matrices: Mapping[str, MatrixStrength]
    activation: str = "gelu_tanh"
    norm_gain: float = 1.0
    norm_eps: float = 1e-5
    scale: float = 1.0
    output_norm: float | None = None
    logit_variance: float | None = None

    @property
    def parts(self) -> tuple[Literal["attention", "ffn"], ...]:
        """What it computes; two parts if they are side by side."""
        return ("attention", "ffn") if self.kind == "parallel" else (self.kind,)


@dataclass(frozen=True, kw_only=True)
class Strengths:
    """What theory needs of a model.

    Attributes:
        width: D.
        vocab_size: rows of the embedding.
        tokens: T, positions in a sequence that attention averages over and readings are taken over.
        embedding_std: of the table's entries.
        multiplier: on the looked-up vectors.
        embedding_norm: kind of the norm behind the multiplier; None if there is none.
        embedding_eps: that norm's epsilon.
        embedding_gain: that norm's weight.
        positions_std: of the table of position vectors; None if positions are no vectors.
        blocks: the sub-layers of each block, in order.
    """

    width: int
    vocab_size: int
    tokens: int
    embedding_std: float
    multiplier: float = 1.0
    embedding_norm: Literal["layernorm", "rmsnorm"] | None = None
    embedding_eps: float = 1e-5
    embedding_gain: float = 1.0
    positions_std: float | None = None
    blocks: tuple[tuple[SubLayerStrengths, ...], ...]

    def token_std(self, eps: bool) -> float:
        """Std of a token's vector as it enters the residual stream, without positions."""
        std = abs(self.multiplier) * self.embedding_std
        if self.embedding_norm is None or std == 0:
            return std
        return self.embedding_gain * std / math.sqrt(std**2 + (self.embedding_eps if eps else 0.0))


def theory(strengths: Strengths) -> Theory:
    """All of theory for a model.

    The gains take the std of the shortcut without any norm's epsilon, the recursion takes it with it.

    Reference: Takase et al., arXiv 2312.16903, formulas (7), (15), (20).
    """
    positions = Positions.of(strengths.tokens)
    groups = len(positions.counts)
    stream = Kernel.independent(strengths.token_std(eps=True) ** 2, groups)
    if strengths.positions_std is not None:  # every position has its own vector, every sequence the same one
        stream += Kernel.independent(strengths.positions_std**2, groups)
    found: list[TheorySubLayer] = []
    first_ffn: tuple[float, float] | None = None
    for layer, block in enumerate(strengths.blocks):
        for sub_layer in block:
            branch = _branch(sub_layer, stream, positions)
            shortcut = positions.median(numpy.sqrt(stream.own))
            factor = abs(sub_layer.scale)
            if sub_layer.output_norm is not None:
                factor *= _divide(abs(sub_layer.output_norm), positions.median(numpy.sqrt(branch.own)))
                branch = normalise(branch, sub_layer.norm_eps) * sub_layer.output_norm**2
            norms = _norms(sub_layer, strengths.tokens)
            if layer == 0 and "ffn" in norms and first_ffn is None:
                first_ffn = (factor * norms["ffn"], shortcut)
            gain = _divide(factor * sum(norms.values()), shortcut)
            found.append(TheorySubLayer(layer=layer, kind=sub_layer.kind, shortcut=shortcut, gain=gain))
            stream += branch * sub_layer.scale**2
    token_std = strengths.token_std(eps=False)
    return Theory(
        embedding_std=token_std,
        embedding_std_with_eps=strengths.token_std(eps=True),
        first_layer_ffn_gain=None if first_ffn is None else _divide(first_ffn[0], token_std),
        first_layer_ffn_gain_with_positions=None if first_ffn is None else _divide(*first_ffn),
        sub_layers=tuple(found),
        log_gain=math.fsum(math.log1p(each.gain) for each in found),
    )


def ffn_norm(sub_layer: SubLayerStrengths) -> float:
    """Estimate of the spectral norm of the feed-forward part's Jacobian behind its norm.

    Two matrices: ||W_2|| ||W_1||, the activation's slope taken as one; sigma_1 sigma_2 (sqrt(D) + sqrt(D_ffn))^2.

    Gated (ours; (15) is for two matrices): the inner Jacobian diag(F(g)) W_up + diag(F'(g) u) W_gate has independent
    entries with mean square E[F(g)^2] sigma_up^2 + E[F'(g)^2] E[u^2] sigma_gate^2 for given g and u. Its root takes the
    place of sigma_1.

    Reference: Takase et al., arXiv 2312.16903, formulas (11), (15).
    """
    up, gate = sub_layer.matrices["ffn_up"], sub_layer.matrices.get("ffn_gate")
    gain = sub_layer.norm_gain
    inner = up.norm
    if gate is not None:
        value, slope = second_moments(sub_layer.activation, gate.variance * gain**2)
        inner = math.sqrt(value * up.norm**2 + slope * up.variance * gain**2 * gate.norm**2)
    return abs(gain) * inner * sub_layer.matrices["ffn_down"].norm


def attention_norm(sub_layer: SubLayerStrengths, tokens: int) -> float:
    """Estimate of the spectral norm of the attention part's Jacobian behind its norm, over a sequence.

    ||W_O|| ||J^Z|| with J^Z = A x W_V for weights A that are the plain causal average (logits near zero; the softmax's
    own derivative left out): ||J^Z|| = ||A|| ||W_V||, times sqrt(H / G) where H query heads share G values.

    Reference: Takase et al., arXiv 2312.16903, formulas (19), (20), with J^Z estimated by us.
    """
    value, out = sub_layer.matrices["value"], sub_layer.matrices["attention_out"]
    shared = math.sqrt(max(1.0, out.d_in / value.d_out))
    return abs(sub_layer.norm_gain) * out.norm * shared * value.norm * causal_norm(tokens)


def _norms(sub_layer: SubLayerStrengths, tokens: int) -> dict[str, float]:
    norms = {"attention": lambda: attention_norm(sub_layer, tokens), "ffn": lambda: ffn_norm(sub_layer)}
    return {part: norms[part]() for part in sub_layer.parts}


def _branch(sub_layer: SubLayerStrengths, stream: Kernel, positions: Positions) -> Kernel:
    """Of the branch's output, before its scale and output norm."""
    matrices, gain = sub_layer.matrices, sub_layer.norm_gain**2
    normed = normalise(stream, sub_layer.norm_eps)
    found = Kernel.independent(0.0, len(positions.counts))
    if "attention" in sub_layer.parts:
        variance = sub_layer.logit_variance
        if variance is None and "query" in matrices and "key" in matrices:
            variance = matrices["query"].variance * matrices["key"].variance * gain**2
        mixed = attend(normed, positions, variance or 0.0)
        found += mixed * (gain * matrices["value"].variance * matrices["attention_out"].variance)
    if "ffn" in sub_layer.parts:
        gate = matrices["ffn_gate"].variance * gain if "ffn_gate" in matrices else None
        inner = feed_forward(normed, matrices["ffn_up"].variance * gain, sub_layer.activation, gate)
        found += inner * matrices["ffn_down"].variance
    return found


def _divide(value: float, by: float) -> float:
    return value / by if by > 0 else math.inf
