"""Llama (Touvron et al. 2023): RMSNorm, RoPE, SwiGLU, grouped-query attention, no biases."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from spikeless.models import Fields, their_activation
from spikeless.nn.attention import SelfAttention
from spikeless.nn.embedding import TokenEmbedding
from spikeless.nn.ffn import GatedMLP, inner_width
from spikeless.nn.norm import RMSNorm
from spikeless.nn.positions import Rotary
from spikeless.nn.transformer import ModelConfig

__all__ = ["Llama"]


class Llama:
    """The family: its configuration and its Hugging Face form."""

    architecture: ClassVar[str] = "LlamaForCausalLM"
    prefix: ClassVar[str] = "model."

    @staticmethod
    def config(
        *,
        num_layers: int,
        width: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        ffn_width: int | None = None,
        vocab_size: int | None = None,
        context_length: int = 2048,
        tied: bool = False,
        theta: float = 10_000.0,
    ) -> ModelConfig:
        """A Llama of any size."""
        return ModelConfig(
            family="llama",
            vocab_size=vocab_size,
            num_layers=num_layers,
            width=width,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            context_length=context_length,
            tied=tied,
            embedding=TokenEmbedding(),
            positions=Rotary(theta=theta),
            norm=RMSNorm(),
            attention=SelfAttention(bias=False),
            ffn=GatedMLP(width=ffn_width),
        )

    @staticmethod
    def from_hugging_face(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        """Our state dict from theirs; every tensor has its counterpart."""
        return {ours: state[theirs] for ours, theirs in _names(config).items()}

    @staticmethod
    def to_hugging_face(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        """Their state dict from ours."""
        theirs = {their_name: state[our_name] for our_name, their_name in _names(config).items()}
        return theirs | {"lm_head.weight": state["embedding.weight"]} if config.tied else theirs

    @staticmethod
    def hugging_face_config(config: ModelConfig) -> dict[str, Any]:
        """Arguments of `transformers.LlamaConfig`."""
        theta = getattr(config.positions, "theta", 10_000.0)
        return {
            "vocab_size": config.vocab_size,
            "hidden_size": config.width,
            "intermediate_size": inner_width(config.ffn, config.width),
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": config.num_heads,
            "num_key_value_heads": config.kv_heads,
            "max_position_embeddings": config.context_length,
            "rms_norm_eps": getattr(config.norm, "eps", 1e-5),
            "rope_theta": theta,  # read by transformers 4
            "rope_parameters": {"rope_type": "default", "rope_theta": theta},  # read by transformers 5
            "hidden_act": their_activation(config.ffn),
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": config.tied,
        }

    @staticmethod
    def from_hugging_face_config(fields: Fields) -> ModelConfig:
        """The model that a `LlamaConfig` describes.

        Raises:
            UserError: one that we do not have.
        """
        fields.require("pretraining_tp", 1)
        for name in ("attention_bias", "mlp_bias", "bias", "use_bias", "qkv_bias"):
            fields.require(name, False, why="our Llama has no biases")
        for name, values in _CALLED.items():
            fields.require(name, *values)
        width = fields.take_size("hidden_size", also=("d_model", "dim", "n_embd"))
        num_heads = fields.take_size("num_attention_heads", also=("num_heads", "n_heads", "n_head"))
        fields.require("head_dim", width // num_heads, why="hidden_size / num_attention_heads")
        context_length = fields.take_size("max_position_embeddings", 2048)
        fields.take_full_attention(context_length)
        eps = fields.take("rms_norm_eps", float, 1e-6, also=("norm_eps", "layer_norm_eps", "layer_norm_epsilon"))
        return ModelConfig(
            family="llama",
            vocab_size=fields.take_size("vocab_size", also=("n_vocab",)),
            num_layers=fields.take_size("num_hidden_layers", also=("num_layers", "n_layers", "n_layer")),
            width=width,
            num_heads=num_heads,
            num_kv_heads=fields.take_size("num_key_value_heads", num_heads, also=("num_kv_heads", "n_kv_heads")),
            context_length=context_length,
            tied=fields.take("tie_word_embeddings", bool, False, also=("tie_embeddings", "weight_tying")),
            embedding=TokenEmbedding(),
            positions=Rotary(theta=fields.take_rope_theta()),
            norm=RMSNorm(eps=eps),
            attention=SelfAttention(bias=False),
            ffn=GatedMLP(
                activation=fields.take_activation("hidden_act", "silu", also=("activation_function", "activation")),
                width=fields.take_size("intermediate_size", also=("ffn_dim", "hidden_dim", "n_inner")),
            ),
        )


_CALLED = {  # what other programs call the parts that every Llama has
    "position_embedding_type": ("rope", "rotary"),
    "rope_type": ("default",),
    "rope_interleaved": (False,),
    "norm_type": ("rms_norm", "rmsnorm", "RMSNorm"),
    "use_rope": (True,),
    "use_rms_norm": (True,),
    "use_rmsnorm": (True,),
    "is_llama_config": (True,),
}
_LAYER = {
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn.gate": "mlp.gate_proj",
    "ffn.up": "mlp.up_proj",
    "ffn.down": "mlp.down_proj",
}


def _names(config: ModelConfig) -> dict[str, str]:
    names = {"embedding.weight": "model.embed_tokens.weight", "final_norm.weight": "model.norm.weight"}
    if not config.tied:
        names["head.weight"] = "lm_head.weight"
    for layer in range(config.num_layers):
        names |= {
            f"blocks.{layer}.{ours}.weight": f"model.layers.{layer}.{theirs}.weight" for ours, theirs in _LAYER.items()
        }
    return names
