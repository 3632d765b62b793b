"""Effective TEV of every causal family of transformers that is built small: what enters its first block, or "unknown".

A number that is wrong is the one thing that must not be.
"""

import json

import pytest
import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from spikeless.errors import UserError

WIDTHS = (
    "hidden_size",
    "d_model",
    "n_embd",
    "dim",
    "emb_dim",
    "embedding_size",
    "embedding_dim",
    "word_embed_proj_dim",
)
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers", "num_blocks")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads", "decoder_attention_heads")
HEADS += (
    "encoder_attention_heads",
    "num_key_value_heads",
    "num_encoder_attention_heads",
    "num_decoder_attention_heads",
)
FFN = ("intermediate_size", "moe_intermediate_size", "ffn_dim", "n_inner", "decoder_ffn_dim", "encoder_ffn_dim")
FFN += ("shared_expert_intermediate_size", "expert_ffn_hidden_size", "ffn_hidden_size")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
STATES = (
    "mamba_d_state",
    "state_size",
    "ssm_state_size",
    "q_lora_rank",
    "kv_lora_rank",
    "qk_nope_head_dim",
    "v_head_dim",
)
SIZES = {"vocab_size": 61, "head_dim": 12, "num_experts_per_tok": 2, "pad_token_id": 0, "bos_token_id": 0}
SIZES |= {"eos_token_id": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "qk_rope_head_dim": 4}
SIZES |= {"mamba_n_heads": 4, "mamba_d_head": 12, "n_groups": 1, "mamba_n_groups": 1, "num_dense_layers": 1}
SIZES |= {"vocab_size_per_layer_input": 61, "hidden_size_per_layer_input": 8, "max_position_embeddings": 64}
SIZES |= dict.fromkeys(WIDTHS, 24) | dict.fromkeys(LAYERS, 2) | dict.fromkeys(HEADS, 2) | dict.fromkeys(FFN, 32)
SIZES |= dict.fromkeys(EXPERTS, 4) | dict.fromkeys(STATES, 8)
OWN = {
    "codegen": {"n_head": 4, "rotary_dim": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "mamba2": {"num_heads": 4},
    "zaya": {"num_experts_per_tok": 1},
}
MOST = 20_000_000  # parameters
QUICK = [
    *[("modernbert-decoder", {}), ("nanochat", {}), ("hrm_text", {}), ("rwkv", {}), ("zaya", {}), ("deepseek_v4", {})],
    *[
        ("afmoe", {"mup_enabled": True}),
        ("afmoe", {"mup_enabled": False}),
        ("minicpm3", {"scale_emb": 7}),
        ("lfm2", {}),
    ],
    *[("cohere", {}), ("granite", {"embedding_multiplier": 12.0}), ("qwen3", {}), ("gemma2", {}), ("gemma4_text", {})],
]
UNKNOWN = {"modernbert-decoder", "nanochat", "hrm_text", "rwkv", "zaya", "deepseek_v4", "gemma4_text"}


class Entered(Exception):
    """The first block was reached; what follows need not work."""


def build(kind, fields):
    """A tiny model with weights that have moved, without positions; None if it is not built so."""
    try:
        plain = transformers.AutoConfig.for_model(kind)
        known = {*plain.to_dict(), *plain.attribute_map}
        small = {name: value for name, value in SIZES.items() if name in known} | OWN.get(kind, {})
        for name in ("layer_types", "mlp_layer_types", "mtp_layer_types"):
            kinds = getattr(plain, name, None)
            if isinstance(kinds, list | tuple) and not isinstance(getattr(type(plain), name, None), property):
                small[name] = [kinds[0], kinds[-1]]
        config = transformers.AutoConfig.for_model(kind, **small | fields)
        with torch.device("meta"):
            skeleton = transformers.AutoModelForCausalLM.from_config(config)
        if sum(each.numel() for each in skeleton.parameters()) > MOST:
            return None
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    except Exception:  # a library's class has its own idea of what fits
        return None
    with torch.no_grad():
        for name, each in [*model.named_parameters(), *model.named_buffers()]:
            if "position" in name or "wpe" in name or "pos_encoding" in name:
                each.zero_()
            elif each.is_floating_point() and isinstance(each, torch.nn.Parameter):
                each.add_(0.05 * torch.randn_like(each) + 0.01)
    return model


def entering(model, rows):
    """What enters the first block [rows, width, of all streams]."""
    found = []

    def keep(module, args, kwargs):
        tensors = [each for each in (*args, *kwargs.values()) if torch.is_tensor(each) and each.is_floating_point()]
        if tensors:
            found.append(tensors[0].detach().clone())
            raise Entered

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and "rotary" not in name:
            for child in module:
                child.register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad(), pytest.raises(Entered):
        model(torch.arange(rows)[:, None], use_cache=False)
    return found[0].reshape(rows, -1)


def check(kind, fields, folder, read):
    """What `tev` says of a family, checked; None if the family is not built, or its table is not found."""
    model = build(kind, fields)
    if model is None:
        return None
    table = model.get_input_embeddings().weight
    rows = min(61, len(table))
    try:
        expected = entering(model, rows)
    except (Exception, pytest.fail.Exception):
        return None
    model.save_pretrained(folder)
    try:
        found = read(folder)
    except UserError:  # no table of a known name: no number
        return None
    if found.effective_mean is not None:
        width = table.shape[1]
        ours = found.effective_mean / found.mean
        theirs = expected.std(1, correction=0).mean() / table[:rows].std(1, correction=0).mean()
        assert expected.shape[1] == width or found.entry.startswith("projection"), kind
        assert ours == pytest.approx(float(theirs), rel=0.03), (kind, found.entry)
    return found


@pytest.mark.parametrize(("kind", "fields"), QUICK, ids=[f"{kind} {fields or ''}" for kind, fields in QUICK])
def test_a_family(kind, fields, tmp_path, read):
    found = check(kind, fields, tmp_path, read)
    assert found.entry.startswith("unknown") == (found.effective_mean is None) == (kind in UNKNOWN)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_family(tmp_path, read):
    found = {kind: check(kind, {}, tmp_path / kind, read) for kind in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)}
    built = {kind: each for kind, each in found.items() if each is not None}
    known = [kind for kind, each in built.items() if each.effective_mean is not None]
    assert len(built) >= 140
    assert len(known) >= 100, sorted(built.keys() - known)


TABLE = torch.randn(9, 8, generator=torch.Generator().manual_seed(0))  # the same in every process: it is in the names
LLAMA = {"model_type": "llama", "hidden_size": 8}


@pytest.mark.parametrize(
    ("config", "beside", "entry"),
    [
        (LLAMA, {}, "none"),
        (LLAMA, {"lm_head.weight": TABLE, "model.norm.weight": torch.ones(8), "lm_head.bias": torch.ones(9)}, "none"),
        (LLAMA | {"embedding_multiplier": 1.0, "scale_embedding": False}, {}, "none"),
        (LLAMA | {"embedding_multiplier": 12.0}, {}, "unknown: embedding_multiplier"),
        (LLAMA | {"normalize_embeddings": True}, {}, "unknown: normalize_embeddings"),
        (LLAMA | {"use_mup": True}, {}, "unknown: use_mup"),
        (LLAMA | {"hidden_size": 16}, {}, "unknown: a table of width 8 in a model of 16"),
        (LLAMA | {"auto_map": {"AutoModelForCausalLM": "m.MyLlama"}}, {}, "unknown: code of its own, MyLlama"),
        (LLAMA | {"auto_map": {"AutoModelForCausalLM": "m.LlamaForCausalLM"}}, {}, "none"),
        ({"model_type": "made_up"}, {}, "unknown: made_up"),
        ({"architectures": ["LlamaForCausalLM"]}, {}, "unknown: no model_type"),
        (LLAMA, {"model.embed_norm.weight": torch.ones(8)}, "unknown: model.embed_norm"),
        (LLAMA, {"embed_projection.weight": torch.ones(8, 8)}, "unknown: embed_projection"),
        (LLAMA, {"model.norm.weight": torch.ones(8), "model.layer_norm.weight": torch.ones(8)}, "unknown: two norms"),
        (LLAMA, {"model.embed_tokens_per_layer.weight": TABLE}, "unknown: model.embed_tokens_per_layer"),
        ({"model_type": "llava", "text_config": LLAMA}, {"multi_modal_projector.norm.weight": torch.ones(8)}, "none"),
        ({"model_type": "my_wrapper", "text_config": LLAMA}, {}, "unknown: my_wrapper"),
        ({"model_type": "llava", "text_config": {"model_type": "made_up"}}, {}, "unknown: made_up"),
        ({"model_type": "bloom"}, {}, "unknown: a norm of another width"),
        ({"model_type": "opt", "hidden_size": 16, "word_embed_proj_dim": 8}, {}, "unknown: no project_in"),
        ({"model_type": "xglm"}, {}, "× 2.828"),
        ({"model_type": "xglm", "scale_embedding": "yes"}, {}, "unknown: scale_embedding = 'yes'"),
        ({"model_type": "minicpm3"}, {}, "unknown: scale_emb"),
    ],
    ids=lambda value: json.dumps(value, default=str)[:60],
)
def test_what_is_not_recognised_does_not_count_as_absent(folder, read, config, beside, entry):
    found = read(folder({"model.embed_tokens.weight": TABLE, **beside}, config))
    assert found.entry.startswith(entry)
    assert (found.effective_mean is None) == entry.startswith("unknown")


def test_a_tied_table_that_only_the_head_holds(folder, read):
    for number, config in enumerate(({"model_type": "gpt2"}, LLAMA | {"tie_word_embeddings": True})):
        found = read(folder({"lm_head.weight": TABLE}, config, name=str(number)))
        assert (found.tensor, found.tied, found.parameters) == ("lm_head.weight", True, 72)
    with pytest.raises(UserError, match="no input embedding found"):
        read(folder({"lm_head.weight": TABLE}, LLAMA, name="untied"))
    both = {"lm_head.weight": TABLE + 1, "model.embed_tokens.weight": TABLE}
    found = read(folder(both, LLAMA | {"tie_word_embeddings": True}, name="both"))
    assert found.tied is False
    assert found.notes == ("config.json ties head and table, but the two are different",)
