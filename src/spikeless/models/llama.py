"""Llama (Touvron et al. 2023): RMSNorm, RoPE, SwiGLU, grouped-query attention, no biases."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from spikeless.nn.attention import SelfAttention
from spikeless.nn.embedding import TokenEmbedding
from spikeless.nn.ffn import GatedMLP
from spikeless.nn.norm import RMSNorm
from spikeless.nn.positions import Rotary
from spikeless.nn.transformer import ModelConfig

__all__ = ["Llama"]


class Llama:
    """The family: its configuration and its Hugging Face form (`LlamaForCausalLM`)."""

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
        return {
            "vocab_size": config.vocab_size,
            "hidden_size": config.width,
            "intermediate_size": getattr(config.ffn, "width", None) or -(-8 * config.width // (3 * 32)) * 32,
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": config.num_heads,
            "num_key_value_heads": config.kv_heads,
            "max_position_embeddings": config.context_length,
            "rms_norm_eps": getattr(config.norm, "eps", 1e-5),
            "rope_theta": getattr(config.positions, "theta", 10_000.0),
            "tie_word_embeddings": config.tied,
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
