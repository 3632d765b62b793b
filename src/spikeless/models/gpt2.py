"""GPT-2 (Radford et al. 2019): LayerNorm, learned positions, tanh-GELU, biases, tied head."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from spikeless.models import Fields, their_activation
from spikeless.nn.attention import SelfAttention
from spikeless.nn.ffn import MLP
from spikeless.nn.norm import LayerNorm
from spikeless.nn.positions import Learned
from spikeless.nn.transformer import ModelConfig

__all__ = ["GPT2"]


class GPT2:
    """The family: its configuration and its Hugging Face form."""

    architecture: ClassVar[str] = "GPT2LMHeadModel"
    prefix: ClassVar[str] = "transformer."

    @staticmethod
    def config(
        *,
        num_layers: int,
        width: int,
        num_heads: int,
        vocab_size: int | None = None,
        context_length: int = 1024,
    ) -> ModelConfig:
        """A GPT-2 of any size."""
        return ModelConfig(
            family="gpt2",
            vocab_size=vocab_size,
            num_layers=num_layers,
            width=width,
            num_heads=num_heads,
            context_length=context_length,
            tied=True,
            positions=Learned(),
            norm=LayerNorm(),
            attention=SelfAttention(bias=True),
            ffn=MLP(activation="gelu_tanh"),
        )

    @staticmethod
    def from_hugging_face(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        """Our state dict from theirs: `Conv1D` weights are transposed, the fused c_attn is split in three."""
        theirs = {key.removeprefix("transformer."): value for key, value in state.items()}
        ours = {
            "embedding.weight": theirs["wte.weight"],
            "positions.weight": theirs["wpe.weight"],
            "final_norm.weight": theirs["ln_f.weight"],
            "final_norm.bias": theirs["ln_f.bias"],
        }
        if not config.tied:
            ours["head.weight"] = theirs["lm_head.weight"]
        for layer in range(config.num_layers):
            for our_name, their_name in _LINEAR.items():
                ours[f"blocks.{layer}.{our_name}.weight"] = theirs[f"h.{layer}.{their_name}.weight"].T
                ours[f"blocks.{layer}.{our_name}.bias"] = theirs[f"h.{layer}.{their_name}.bias"]
            for our_name, their_name in _NORMS.items():
                for kind in ("weight", "bias"):
                    ours[f"blocks.{layer}.{our_name}.{kind}"] = theirs[f"h.{layer}.{their_name}.{kind}"]
            fused = theirs[f"h.{layer}.attn.c_attn.weight"].T, theirs[f"h.{layer}.attn.c_attn.bias"]
            for kind, tensor in zip(("weight", "bias"), fused, strict=True):
                for part, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                    ours[f"blocks.{layer}.attention.{part}.{kind}"] = piece
        return {key: value.contiguous() for key, value in ours.items()}

    @staticmethod
    def to_hugging_face(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        """Their state dict from ours."""
        theirs = {
            "transformer.wte.weight": state["embedding.weight"],
            "transformer.wpe.weight": state["positions.weight"],
            "transformer.ln_f.weight": state["final_norm.weight"],
            "transformer.ln_f.bias": state["final_norm.bias"],
            "lm_head.weight": state["embedding.weight" if config.tied else "head.weight"],
        }
        for layer in range(config.num_layers):
            for our_name, their_name in _LINEAR.items():
                theirs[f"transformer.h.{layer}.{their_name}.weight"] = state[
                    f"blocks.{layer}.{our_name}.weight"
                ].T.contiguous()
                theirs[f"transformer.h.{layer}.{their_name}.bias"] = state[f"blocks.{layer}.{our_name}.bias"]
            for our_name, their_name in _NORMS.items():
                for kind in ("weight", "bias"):
                    theirs[f"transformer.h.{layer}.{their_name}.{kind}"] = state[f"blocks.{layer}.{our_name}.{kind}"]
            for kind in ("weight", "bias"):
                parts = [state[f"blocks.{layer}.attention.{part}.{kind}"] for part in ("query", "key", "value")]
                fused = torch.cat(parts)
                theirs[f"transformer.h.{layer}.attn.c_attn.{kind}"] = (
                    fused.T.contiguous() if kind == "weight" else fused
                )
        return theirs

    @staticmethod
    def hugging_face_config(config: ModelConfig) -> dict[str, Any]:
        """Arguments of `transformers.GPT2Config`."""
        return {
            "vocab_size": config.vocab_size,
            "n_positions": config.context_length,
            "n_embd": config.width,
            "n_layer": config.num_layers,
            "n_head": config.num_heads,
            "n_inner": getattr(config.ffn, "width", None),
            "activation_function": their_activation(config.ffn),
            "layer_norm_epsilon": getattr(config.norm, "eps", 1e-5),
            "tie_word_embeddings": config.tied,
            **dict.fromkeys(_DROPOUTS, 0.0),
        }

    @staticmethod
    def from_hugging_face_config(fields: Fields) -> ModelConfig:
        """The model that a `GPT2Config` describes.

        Raises:
            UserError: one that we do not have.
        """
        for name in ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"):
            fields.require(name, False)
        for name in ("scale_attn_weights", "bias", "use_bias", "qkv_bias", "attention_bias", "mlp_bias"):
            fields.require(name, True, why="every GPT-2 has it")
        fields.require("position_embedding_type", "absolute", "learned")
        fields.ignore(("n_ctx",))  # an older name of n_positions
        width = fields.take_size("n_embd", also=("hidden_size",))
        num_heads = fields.take_size("n_head", also=("num_attention_heads",))
        fields.require("num_key_value_heads", num_heads)
        fields.require("head_dim", width // num_heads, why="n_embd / n_head")
        ffn_width = fields.take_size_or_none("n_inner")
        fields.require("intermediate_size", ffn_width or 4 * width)
        context_length = fields.take_size("n_positions", also=("max_position_embeddings",))
        fields.take_full_attention(context_length)
        return ModelConfig(
            family="gpt2",
            vocab_size=fields.take_size("vocab_size"),
            num_layers=fields.take_size("n_layer", also=("num_hidden_layers",)),
            width=width,
            num_heads=num_heads,
            context_length=context_length,
            tied=fields.take("tie_word_embeddings", bool, True),
            positions=Learned(),
            norm=LayerNorm(eps=fields.take("layer_norm_epsilon", float, 1e-5, also=("layer_norm_eps",))),
            attention=SelfAttention(bias=True),
            ffn=MLP(
                activation=fields.take_activation("activation_function", "gelu_new", also=("hidden_act",)),
                width=ffn_width,
            ),
        )


_LINEAR = {"attention.out": "attn.c_proj", "ffn.up": "mlp.c_fc", "ffn.down": "mlp.c_proj"}
_DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")  # we have none: training goes on without
_NORMS = {"attention_norm": "ln_1", "ffn_norm": "ln_2"}
