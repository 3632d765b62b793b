"""What theory needs of any model: standard deviations and sizes of the matrices that the anatomy found."""

import math
from collections.abc import Callable, Mapping

from torch import Tensor

from spikeless.diagnostics.anatomy import Anatomy, BlockView
from spikeless.diagnostics.anatomy.matrices import Matrix
from spikeless.diagnostics.anatomy.parts import AttentionParts, FeedForwardParts
from spikeless.errors import UserError
from spikeless.nn.projection import product_std, spectral_norm_of_product
from spikeless.preflight.proxy import proxy_run
from spikeless.preflight.theory import MatrixStrength, Strengths, SubLayerStrengths
from spikeless.roles import Role
from spikeless.run import RunConfig

__all__ = ["StdOf", "block_strengths", "matrix_strength", "model_strengths", "stand_in_for"]

StdOf = Callable[[str], float | None]
"""Standard deviation of a parameter's entries by its name: declared, or measured; None if not known."""


def matrix_strength(matrix: Matrix, std_of: StdOf) -> MatrixStrength | None:
    """Std and shape of a matrix; of a product, what independent factors give. None if a std is not known."""
    stds = [std_of(factor.name) if factor.stored else _computed_std(factor.weight) for factor in matrix.factors]
    known = [std for std in stds if std is not None and math.isfinite(std)]
    if len(known) < len(stds):
        return None
    d_out, d_in = matrix.shape
    if len(known) == 1:
        return MatrixStrength(std=known[0], d_out=d_out, d_in=d_in)
    if len(known) > 2:
        return None
    rank = matrix.factors[0].shape[0]
    return MatrixStrength(
        std=product_std(math.sqrt(known[0] * known[1]), rank),
        d_out=d_out,
        d_in=d_in,
        spectral=known[0] * known[1] * spectral_norm_of_product(d_out, rank, d_in),
    )


def _computed_std(weight: Tensor) -> float | None:
    """Of a weight that is computed in the forward pass; it has no numbers on the meta device."""
    return None if weight.is_meta else float(weight.detach().float().std(correction=0))


def block_strengths(anatomy: Anatomy, view: BlockView, std_of: StdOf) -> tuple[SubLayerStrengths | None, ...]:
    """One for each sub-layer of a block; None where its parts or their std are not known, or the form has no theory."""
    found: list[SubLayerStrengths | None] = []
    for segment, parts in zip(view.segments, view.parts, strict=True):
        matrices: dict[str, MatrixStrength] = {}
        complete = parts.kind != "unknown" and not parts.unknown and parts.direct
        complete = complete and view.form not in ("post-norm", "unknown") and bool(segment.norms)
        for part in (parts.attention, parts.ffn):
            for role, matrix in (part.matrices if part else {}).items():
                strength = matrix_strength(matrix, std_of)
                if strength is None:
                    complete = False
                else:
                    matrices[role.value] = strength
        complete = complete and len(set(parts.scales.values())) == 1
        complete = complete and _whole(parts.attention, parts.ffn, matrices)
        if not complete:
            found.append(None)
            continue
        _unfuse(parts.attention, parts.ffn, matrices)
        before = [anatomy.norms[norm.path] for norm in segment.norms]
        behind = [anatomy.norms[norm.path] for norm in segment.post_norms]
        found.append(
            SubLayerStrengths(
                kind=parts.kind,  # type: ignore[arg-type]
                matrices=matrices,
                activation=parts.ffn.activation if parts.ffn else "gelu_tanh",
                norm_gain=_typical(before[0].gain) if before else 1.0,
                norm_eps=before[0].eps if before else 0.0,
                scale=next(iter(parts.scales.values())),
                output_norm=_typical(behind[0].gain) if behind else None,
                logit_variance=1.0 if parts.attention is not None and parts.attention.normed else None,
            )
        )
    return tuple(found)


def model_strengths(
    anatomy: Anatomy,
    blocks: tuple[tuple[SubLayerStrengths | None, ...], ...],
    std_of: StdOf,
    tokens: int,
) -> Strengths | None:
    """The whole model; None where a part of it is not known."""
    entry = anatomy.entry
    if entry is None or entry.multiplier is None or not blocks:
        return None
    std = std_of(entry.name)
    known = tuple(tuple(each for each in block if each is not None) for block in blocks)
    if std is None or not math.isfinite(std) or any(len(a) < len(b) for a, b in zip(known, blocks, strict=True)):
        return None
    positions = None
    if entry.positions is not None:
        positions = next((std_of(name) for name in entry.position_names), None)
    return Strengths(
        width=anatomy.width,
        vocab_size=entry.weight.shape[0],
        tokens=tokens,
        embedding_std=std,
        multiplier=entry.multiplier,
        embedding_norm=None if entry.norm is None else "layernorm" if entry.norm.centred else "rmsnorm",
        embedding_eps=0.0 if entry.norm is None else entry.norm.eps,
        embedding_gain=1.0 if entry.norm is None else _typical(entry.norm.gain),
        positions_std=positions,
        blocks=known,
    )


def stand_in_for(anatomy: Anatomy, strengths: Strengths) -> RunConfig | None:
    """A run of the same sizes and std, on which techniques can be tried; None for what our parts cannot stand for."""
    first = strengths.blocks[0]
    matrices = {role: matrix for sub_layer in first for role, matrix in sub_layer.matrices.items()}
    if not {"value", "attention_out", "ffn_up", "ffn_down"} <= matrices.keys() or anatomy.num_heads < 1:
        return None
    stds = {role: matrix.std for role, matrix in matrices.items()} | {"token_embedding": strengths.embedding_std}
    if strengths.positions_std is not None:
        stds["position_embedding"] = strengths.positions_std
    head_width = matrices["attention_out"].d_in // anatomy.num_heads
    norm = next(iter(anatomy.norms.values()), None)
    ffn = next(each for each in first if "ffn" in each.parts)
    forms = {"sandwich": "sandwich", "parallel": "parallel"}
    try:
        return proxy_run(
            num_layers=len(strengths.blocks),
            width=strengths.width,
            num_heads=anatomy.num_heads,
            num_kv_heads=max(1, matrices["value"].d_out // max(1, head_width)),
            head_width=head_width,
            ffn_width=matrices["ffn_down"].d_in,
            gated="ffn_gate" in matrices,
            norm="layernorm" if norm is None or norm.centred else "rmsnorm",
            activation=ffn.activation,
            vocab_size=strengths.vocab_size,
            tied=bool(anatomy.tied),
            learned_positions=strengths.positions_std is not None,
            stds=stds,
            embedding_multiplier=strengths.multiplier,
            embedding_norm=strengths.embedding_norm,
            norm_eps=ffn.norm_eps or 1e-5,
            norm_gain=ffn.norm_gain,
            query_norm=any(each.logit_variance is not None for each in first),
            form=forms.get(anatomy.forms[0], "pre-norm"),  # type: ignore[arg-type]
        )
    except UserError:
        return None


def _typical(gain: Tensor) -> float:
    return float(gain.double().square().mean().sqrt())


def _whole(
    attention: AttentionParts | None, ffn: FeedForwardParts | None, matrices: Mapping[str, MatrixStrength]
) -> bool:
    wanted = []
    if attention is not None:
        wanted += [Role.VALUE, Role.ATTENTION_OUT]
    if ffn is not None:
        if not ffn.activation:
            return False
        wanted += [Role.FFN_UP, Role.FFN_DOWN]
    return all(role.value in matrices for role in wanted)


def _unfuse(
    attention: AttentionParts | None, ffn: FeedForwardParts | None, matrices: dict[str, MatrixStrength]
) -> None:
    """Shapes of the parts of fused matrices, which are drawn alike: values as wide as the heads, half for each gate."""
    if attention is not None and attention.fused:
        whole, width = matrices[Role.VALUE.value], matrices[Role.ATTENTION_OUT.value].d_in
        shared = max(1, (whole.d_out - width) // 2)
        for role, d_out in ((Role.QUERY, width), (Role.KEY, shared), (Role.VALUE, shared)):
            matrices[role.value] = MatrixStrength(std=whole.std, d_out=d_out, d_in=whole.d_in)
    if ffn is not None and ffn.fused:
        whole = matrices[Role.FFN_UP.value]
        for role in (Role.FFN_UP, Role.FFN_GATE):
            matrices[role.value] = MatrixStrength(std=whole.std, d_out=whole.d_out // 2, d_in=whole.d_in)
