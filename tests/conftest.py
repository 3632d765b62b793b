"""Tests run offline, with a cache of their own, and with the shapes in signatures checked."""

import os
import signal
import warnings
from collections.abc import Callable

import pytest
from jaxtyping import install_import_hook

os.environ["HF_HUB_OFFLINE"] = "1"
for each in (signal.SIGHUP, signal.SIGUSR1):
    signal.signal(each, signal.SIG_DFL)  # under nohup they are ignored, and what runs respects that

# Modules imported from here on have the shapes in their signatures checked. The slots' protocols cannot be
# checked at run time: what names one in its signature is left as it is.
install_import_hook(
    ["spikeless.nn", "spikeless.losses"],
    "beartype.beartype(conf=beartype.BeartypeConf("
    "warning_cls_on_decorator_exception=PendingDeprecationWarning, is_pep484_tower=True))",
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore", PendingDeprecationWarning)
    import torch

    from spikeless.config import find, replace_at
    from spikeless.init import initialise
    from spikeless.nn.transformer import Transformer
    from spikeless.run import RunConfig
    from spikeless.stabilizers import apply


def pytest_configure(config: pytest.Config) -> None:
    """A warning of ours fails a test, but that a run of a few steps does not leave its warm-up.

    In pyproject.toml this would import the package before the hook stands.
    """
    config.addinivalue_line("filterwarnings", "error::spikeless.errors.SpikelessWarning")
    config.addinivalue_line("filterwarnings", "ignore:optim.lr=.* is never reached:spikeless.errors.SpikelessWarning")


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory):
    """No test reads or writes the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("spikeless-cache")
        patch.setenv("SPIKELESS_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_run() -> Callable[..., RunConfig]:
    """Makes a run of a family whose model is built in milliseconds: `tiny_run("gpt2", "mlra", width=64)`."""

    def make(family: str = "gpt2", *techniques: str, scheme: object = None, **model: object) -> RunConfig:
        run = find("recipes", f"{family}_nano")()
        sizes = {"num_layers": 2, "width": 32, "num_heads": 4, "vocab_size": 97, "context_length": 32} | model
        run = replace_at(run, {f"model.{name}": value for name, value in sizes.items()})
        run = replace_at(run, {"data.sequence_length": run.model.context_length, "steps": 20})
        return apply(replace_at(run, {"init.scheme": scheme}) if scheme else run, techniques)

    return make


@pytest.fixture(scope="session")
def build() -> Callable[..., Transformer]:
    """Builds a run's model and draws its weights."""

    def make(run: RunConfig, seed: int = 0) -> Transformer:
        model = Transformer(run.model)
        initialise(model, run.init, seed, width=run.model.width, num_layers=run.model.num_layers)
        return model

    return make


V, D, H, F, L = 97, 32, 4, 64, 3
IDS = {"bos_token_id": 1, "eos_token_id": 2}
MHA = {"vocab_size": V, "hidden_size": D, "intermediate_size": F, "num_hidden_layers": L, "num_attention_heads": H}
MHA |= {"max_position_embeddings": 64, "pad_token_id": 0, **IDS}
KV = MHA | {"num_key_value_heads": 2}
HEAD = {"head_dim": 8, "query_pre_attn_scalar": 8}
OPT = {"vocab_size": V, "hidden_size": D, "ffn_dim": F, "num_hidden_layers": L, "num_attention_heads": H}
OPT |= {"max_position_embeddings": 64, "dropout": 0.0, "pad_token_id": 0, **IDS}
GPT2 = {"vocab_size": V, "n_embd": D, "n_layer": L, "n_head": H, "n_positions": 64, **IDS}
FAMILIES = {
    "gpt2": ("GPT2Config", GPT2),
    "llama": ("LlamaConfig", KV),
    "mistral": ("MistralConfig", KV),
    "qwen2": ("Qwen2Config", KV),
    "qwen3": ("Qwen3Config", KV | {"head_dim": 8}),
    "gemma2": ("Gemma2Config", KV | HEAD),
    "gemma3": ("Gemma3TextConfig", KV | HEAD),
    "opt": ("OPTConfig", OPT | {"word_embed_proj_dim": D}),
    "opt, post-norm": ("OPTConfig", OPT | {"word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "bloom": ("BloomConfig", {"vocab_size": V, "hidden_size": D, "n_layer": L, "n_head": H, **IDS}),
    "gpt-neox": ("GPTNeoXConfig", MHA),
    "gpt-neox, sequential": ("GPTNeoXConfig", MHA | {"use_parallel_residual": False}),
    "phi": ("PhiConfig", MHA),
    "phi3": ("Phi3Config", KV),
    "falcon": (
        "FalconConfig",
        {"vocab_size": V, "hidden_size": D, "num_hidden_layers": L, "num_attention_heads": H, **IDS},
    ),
    "gpt-j": ("GPTJConfig", GPT2 | {"rotary_dim": 4}),
    "olmo2": ("Olmo2Config", KV),
    "granite": ("GraniteConfig", KV | {"residual_multiplier": 0.5, "embedding_multiplier": 3.0}),
    "mixtral": ("MixtralConfig", KV | {"num_local_experts": 4}),
}


@pytest.fixture(scope="session")
def make_family() -> Callable[..., torch.nn.Module]:
    """Builds a small model of `transformers`: `make_family("opt", inflate=5)` multiplies its matrices."""

    def make(name: str, inflate: float = 1.0, device: str = "cpu") -> torch.nn.Module:
        import transformers

        config, fields = FAMILIES[name]
        torch.manual_seed(0)
        with torch.device(device):
            model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, config)(**fields)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(inflate)
        return model

    return make


@pytest.fixture(autouse=True)
def _seeded():
    """Every test draws the same random numbers, whatever ran before it."""
    torch.manual_seed(0)
