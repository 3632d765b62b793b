"""Small models of many families, freshly initialised, with the truth about their parts."""

from collections.abc import Callable

import pytest
import torch
import transformers as hf

from spikeless.diagnostics.anatomy import Anatomy, BlockView, dissect
from spikeless.diagnostics.anatomy.language_model import LanguageModel

V, D, H, F, L = 97, 32, 4, 64, 3
KV = {
    "vocab_size": V,
    "hidden_size": D,
    "intermediate_size": F,
    "num_hidden_layers": L,
    "num_attention_heads": H,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MHA = {name: value for name, value in KV.items() if name != "num_key_value_heads"}
HEAD = {"head_dim": 8, "query_pre_attn_scalar": 8}
OPT = {"vocab_size": V, "hidden_size": D, "ffn_dim": F, "num_hidden_layers": L, "num_attention_heads": H}
OPT |= {"max_position_embeddings": 64, "dropout": 0.0, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GPT2 = {"vocab_size": V, "n_embd": D, "n_layer": L, "n_head": H, "n_positions": 64, "bos_token_id": 1}
GPT2 |= {"eos_token_id": 1}

FAMILIES: dict[str, Callable[[], hf.PretrainedConfig]] = {
    "gpt2": lambda: hf.GPT2Config(**GPT2),
    "llama": lambda: hf.LlamaConfig(**KV),
    "mistral": lambda: hf.MistralConfig(**KV),
    "qwen2": lambda: hf.Qwen2Config(**KV),
    "qwen3": lambda: hf.Qwen3Config(**KV, head_dim=8),
    "gemma2": lambda: hf.Gemma2Config(**KV, **HEAD),
    "gemma3": lambda: hf.Gemma3TextConfig(**KV, **HEAD),
    "opt": lambda: hf.OPTConfig(**OPT, word_embed_proj_dim=D),
    "opt, post-norm": lambda: hf.OPTConfig(**OPT, word_embed_proj_dim=16, do_layer_norm_before=False),
    "bloom": lambda: hf.BloomConfig(vocab_size=V, hidden_size=D, n_layer=L, n_head=H, bos_token_id=1, eos_token_id=2),
    "gpt-neox": lambda: hf.GPTNeoXConfig(**MHA),
    "gpt-neox, sequential": lambda: hf.GPTNeoXConfig(**MHA, use_parallel_residual=False),
    "phi": lambda: hf.PhiConfig(**MHA),
    "phi3": lambda: hf.Phi3Config(**KV),
    "falcon": lambda: hf.FalconConfig(
        vocab_size=V, hidden_size=D, num_hidden_layers=L, num_attention_heads=H, bos_token_id=1, eos_token_id=2
    ),
    "gpt-j": lambda: hf.GPTJConfig(**GPT2, rotary_dim=4),
    "olmo2": lambda: hf.Olmo2Config(**KV),
    "granite": lambda: hf.GraniteConfig(**KV, residual_multiplier=0.5, embedding_multiplier=3.0),
    "mixtral": lambda: hf.MixtralConfig(**KV, num_local_experts=4),
}


@pytest.fixture(scope="session")
def make_family() -> Callable[..., torch.nn.Module]:
    """Builds a family's model: `make_family("opt", inflate=5)` multiplies its matrices."""

    def make(name: str, inflate: float = 1.0, device: str = "cpu") -> torch.nn.Module:
        torch.manual_seed(0)
        with torch.device(device):
            model = hf.AutoModelForCausalLM.from_config(FAMILIES[name]()).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(inflate)
        return model

    return make


@pytest.fixture(scope="session")
def views_of() -> Callable[..., tuple[Anatomy, list[BlockView]]]:
    """A model's anatomy, and differentiable views of its blocks at some random tokens: `views_of(model, tokens)`."""

    def make(model: torch.nn.Module, tokens: int = 12) -> tuple[Anatomy, list[BlockView]]:
        lm = LanguageModel(model)
        anatomy = dissect(lm)
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(anatomy.vocab_size, (1, max(12, tokens)), generator=generator)[:, :tokens]
        with lm.quiet(), torch.enable_grad():
            calls = anatomy.calls(ids)
            return anatomy, [
                anatomy.view(index, call, call.stream.detach().requires_grad_()) for index, call in enumerate(calls)
            ]

    return make
