"""Models with weights that have moved, and a folder of `transformers`' own making."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from spikeless.config import find
from spikeless.data.tokenizers.bytes import Bytes
from spikeless.nn.transformer import Transformer
from spikeless.roles import role_of

THEIR_CLASSES = {
    "gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel),
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
}
SIZES = {
    "gpt2": {"n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": 300, "n_positions": 32},
    "llama": {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "vocab_size": 300,
        "max_position_embeddings": 32,
    },
}


@pytest.fixture(scope="session")
def tokenizer():
    return Bytes().build(lambda: iter(()), "")


@pytest.fixture(scope="session")
def inflate() -> Callable[[Transformer], Transformer]:
    """Maps `factor` times as large, norms and biases drawn: at init a wrong term may be too small to see.

    Each of two factors gets the square root, so that their product is as much larger as a dense matrix.
    """

    def make(model: Transformer, factor: float = 2.0) -> Transformer:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                if role_of(name).is_matrix:
                    is_factor = ".attention." in name and name.endswith((".up.weight", ".down.weight"))
                    parameter.mul_(factor**0.5 if is_factor else factor)
                else:
                    parameter.copy_((parameter + 0.3 * noise) * 1.5)
        return model

    return make


@pytest.fixture(scope="session")
def in_float64() -> Callable[[torch.nn.Module], torch.nn.Module]:
    """Their model in float64, also its RMSNorm, which would compute in fp32 whatever the input."""

    def make(theirs: torch.nn.Module) -> torch.nn.Module:
        for name, module in list(theirs.named_modules()):
            if type(module).__name__ == "LlamaRMSNorm":
                true = torch.nn.RMSNorm(module.weight.shape[0], eps=module.variance_epsilon)
                true.weight = module.weight
                theirs.set_submodule(name, true)
        return theirs.double()

    return make


@pytest.fixture(scope="session")
def their_folder(tmp_path_factory, tokenizer) -> Callable[..., Path]:
    """Makes a folder as `transformers` saves it: `their_folder("llama", tie_word_embeddings=True)`."""

    def make(family: str, dtype: torch.dtype = torch.float32, **fields: object) -> Path:
        config_class, model_class = THEIR_CLASSES[family]
        torch.manual_seed(0)
        model = model_class(config_class(**SIZES[family] | {"bos_token_id": 256, "eos_token_id": 256} | fields))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        folder = tmp_path_factory.mktemp(family)
        model.to(dtype).save_pretrained(folder)
        tokenizer.save(folder)
        return folder

    return make


@pytest.fixture
def edit_config() -> Callable[..., None]:
    """Changes fields of a folder's config.json; None removes one."""

    def edit(folder: Path, **fields: object) -> None:
        path = folder / "config.json"
        data = json.loads(path.read_text()) | fields
        path.write_text(json.dumps({name: value for name, value in data.items() if value is not None}))

    return edit


@pytest.fixture
def edit_weights() -> Callable[..., None]:
    """Changes tensors of a folder's model.safetensors; None removes one."""

    def edit(folder: Path, rename: Callable[[str], str] = str, **tensors: torch.Tensor | None) -> None:
        path = folder / "model.safetensors"
        state = load_file(path) | {name.replace("__", "."): each for name, each in tensors.items()}
        save_file({rename(name): each for name, each in state.items() if each is not None}, path, {"format": "pt"})

    return edit


@pytest.fixture(scope="session")
def as_theirs() -> Callable[[Transformer], torch.nn.Module]:
    """Our plain model as their class, in memory."""

    def make(plain: Transformer) -> torch.nn.Module:
        family = find("models", plain.config.family)
        config_class, model_class = THEIR_CLASSES[plain.config.family]
        theirs = model_class(config_class(**family.hugging_face_config(plain.config)))
        theirs.to(plain.output_weight.dtype)
        theirs.load_state_dict(family.to_hugging_face(plain.state_dict(), plain.config), strict=True)
        return theirs.eval()

    return make


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> str:
    """A folder of small text files, as a data spec."""
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(20):
        text = " ".join(f"word{number * place % 37}" for place in range(60))
        (folder / f"{number}.txt").write_text(text)
    return f"text:{folder}/*.txt"
