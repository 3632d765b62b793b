"""Hugging Face folders in: every tensor accounted for, every unsupported field named, and out again bit by bit."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file, save_model

from spikeless.errors import UserError
from spikeless.nn.transformer import Transformer
from spikeless.pretrained.read import check_pretrained, read_config, read_pretrained
from spikeless.pretrained.write import write_pretrained

SHAPES = {
    "gpt2-tied": ("gpt2", {}),
    "gpt2-untied": ("gpt2", {"tie_word_embeddings": False}),
    "gpt2-other": ("gpt2", {"n_inner": 48, "activation_function": "relu", "layer_norm_epsilon": 1e-3}),
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "llama-untied": ("llama", {"tie_word_embeddings": False, "num_key_value_heads": 4}),
    "llama-other": ("llama", {"rms_norm_eps": 1e-3, "hidden_act": "gelu", "num_key_value_heads": 1}),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TABLES = {"gpt2": "transformer.wte.weight", "llama": "model.embed_tokens.weight"}


@pytest.fixture(params=SHAPES)
def shape(request):
    return SHAPES[request.param]


def model_of(read):
    model = Transformer(read.config)
    model.load_state_dict(read.state, strict=True)
    return model.eval()


def test_our_model_computes_what_theirs_does(shape, their_folder):
    family, fields = shape
    folder = their_folder(family, **fields)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokens = torch.randint(300, (2, 32))
    with torch.no_grad():
        a, b = model_of(read_pretrained(folder))(tokens), theirs(tokens).logits
    assert (a - b).abs().max() <= 1e-5 * max(1.0, b.abs().max().item())


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_and_out_again_keeps_every_bit_and_every_field(shape, dtype, their_folder, tmp_path):
    family, fields = shape
    folder = their_folder(family, DTYPES[dtype], **fields)
    read = read_pretrained(folder)
    assert {each.dtype for each in read.state.values()} == {torch.float32}
    write_pretrained(model_of(read), read.tokenizer, tmp_path, dtype=DTYPES[dtype])
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(after[name].dtype == each.dtype and torch.equal(after[name], each) for name, each in before.items())
    old, new = (transformers.AutoConfig.from_pretrained(each).to_dict() for each in (folder, tmp_path))
    changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    dropout = {"resid_pdrop", "embd_pdrop", "attn_pdrop"}
    assert changed <= dropout | {"_name_or_path", "transformers_version", "rope_theta"}


def test_the_tokenizer_comes_along(their_folder, tokenizer):
    read = read_pretrained(their_folder("gpt2"))
    assert read.tokenizer.fingerprint() == tokenizer.fingerprint()


def test_the_files_of_gpt2_are_a_tokenizer_too(their_folder):
    folder = their_folder("gpt2")
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"] | {"<|endoftext|>": 256}
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    assert read_pretrained(folder).tokenizer.encode("hi") == [vocabulary["h"], vocabulary["i"]]


def test_shards_are_read(their_folder, tmp_path):
    whole = their_folder("llama")
    model = transformers.AutoModelForCausalLM.from_pretrained(whole)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    a, b = read_pretrained(whole).state, read_pretrained(tmp_path)
    assert b.tokenizer is None
    assert all(torch.equal(each, b.state[name]) for name, each in a.items())


# --- weights ---


@pytest.mark.parametrize("family", TABLES)
def test_names_may_lack_the_prefix_and_known_buffers_are_passed_over(family, their_folder, edit_weights):
    folder = their_folder(family, tie_word_embeddings=True)
    before = read_pretrained(folder).state
    prefix = TABLES[family].partition(".")[0] + "."
    buffers = {
        "h__0__attn__bias": torch.ones(1, 1, 32, 32),
        "layers__0__self_attn__rotary_emb__inv_freq": torch.ones(4),
    }
    edit_weights(folder, rename=lambda name: name.removeprefix(prefix), **buffers)
    after = read_pretrained(folder).state
    assert all(torch.equal(each, after[name]) for name, each in before.items())


@pytest.mark.parametrize("family", TABLES)
def test_a_tied_model_may_store_its_head_if_it_is_the_same(family, their_folder, edit_weights):
    folder = their_folder(family, tie_word_embeddings=True)
    table = load_file(folder / "model.safetensors")[TABLES[family]]
    edit_weights(folder, lm_head__weight=table.clone())
    read_pretrained(folder)
    edit_weights(folder, lm_head__weight=table + 1)
    with pytest.raises(UserError, match=r"lm_head\.weight is not the same as .*config\.json ties"):
        read_pretrained(folder)


@pytest.mark.parametrize("family", TABLES)
@pytest.mark.parametrize("spelling", ["head only", "save_model", "wrapped", "wrapped bare", "around"])
def test_spellings_of_tied_and_wrapped_weights(family, spelling, their_folder):
    """Each computes what transformers reads from the plain file."""
    folder = their_folder(family, tie_word_embeddings=True)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    path, state = folder / "model.safetensors", load_file(folder / "model.safetensors")
    prefix = TABLES[family].partition(".")[0] + "."
    if spelling == "head only":
        state["lm_head.weight"] = state.pop(TABLES[family])
    rename = {
        "wrapped": "module._orig_mod.{}".format,
        "wrapped bare": lambda name: f"_orig_mod.{name.removeprefix(prefix)}",
        "around": "lightning.model.{}".format,
    }.get(spelling, str)
    if spelling == "save_model":
        save_model(torch.nn.ModuleDict({"_orig_mod": theirs}), str(path))
        assert f"_orig_mod.{TABLES[family]}" not in load_file(path)
    else:
        save_file({rename(name): each for name, each in state.items()}, path)
    tokens = torch.randint(300, (2, 16))
    with torch.no_grad():
        a, b = model_of(read_pretrained(folder))(tokens), theirs(tokens).logits
    assert (a - b).abs().max() <= 1e-5 * max(1.0, b.abs().max().item())


@pytest.mark.parametrize(
    ("family", "tensors", "message"),
    [
        ("gpt2", {"transformer__ln_f__bias": None}, r"weight transformer\.ln_f\.bias is missing"),
        ("llama", {"lm_head__weight": None}, r"weight lm_head\.weight is missing"),
        ("gpt2", {"transformer__wpe__weight": torch.ones(31, 32)}, r"wpe\.weight has the shape \[31, 32\].*\[32, 32\]"),
        ("gpt2", {"transformer__h__2__ln_1__bias": torch.ones(32)}, r"no weight transformer\.h\.2\.ln_1\.bias"),
        ("llama", {"model__layers__0__self_attn__q_proj__bias": torch.ones(32)}, r"no weight .*q_proj\.bias"),
        ("llama", {"model__norm__weight": torch.ones(32, dtype=torch.int64)}, r"norm\.weight is stored as I64"),
        ("llama", {"model__norm__weight": torch.full((32,), torch.inf)}, r"norm\.weight is not finite"),
    ],
)
def test_weights_are_checked_one_by_one(family, tensors, message, their_folder, edit_weights):
    folder = their_folder(family)
    edit_weights(folder, **tensors)
    with pytest.raises(UserError, match=message):
        read_pretrained(folder)


# --- config.json ---


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_parameters.rope_type = 'llama3'"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling.rope_type = 'linear'"),
        ("llama", {"attention_bias": True}, "attention_bias = True"),
        ("llama", {"mlp_bias": True}, "mlp_bias = True"),
        ("llama", {"hidden_act": "quick_gelu"}, "hidden_act = 'quick_gelu'"),
        ("llama", {"pretraining_tp": 2}, "pretraining_tp = 2"),
        ("llama", {"head_dim": 16}, "head_dim = 16"),
        ("llama", {"sliding_window": 16}, "sliding_window = 16"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("llama", {"num_attention_heads": 0}, "'num_attention_heads' is 0"),
        ("llama", {"hidden_size": "32"}, "'hidden_size' is '32'"),
        ("llama", {"auto_map": {"AutoModel": "evil.Model"}}, "auto_map names Model, code that is not run"),
        ("llama", {"rope_theta": 5e5}, "rope_theta = 500000.0, rope_parameters.rope_theta = 10000.0 contradict"),
        ("llama", {"rope_interleaved": True}, "rope_interleaved = True"),
        ("llama", {"embedding_multiplier": 12.0}, "embedding_multiplier = 12.0"),
        ("llama", {"residual_multiplier": 0}, "residual_multiplier = 0"),
        ("llama", {"is_causal": False}, "is_causal = False"),
        ("llama", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("llama", {"layer_norm_eps": 1e-3}, "layer_norm_eps = 0.001 is not supported (rms_norm_eps is 1e-06)"),
        ("llama", {"d_model": 64}, "d_model = 64"),
        ("llama", {"is_llama_config": False}, "is_llama_config = False"),
        ("llama", {"quantization": {"bits": 4}}, "quantization"),
        ("llama", {"use_qk_norm": True}, "use_qk_norm = True is not known"),
        ("gpt2", {"hidden_size": 64}, "hidden_size = 64"),
        ("gpt2", {"bias": False}, "bias = False"),
        ("gpt2", {"position_embedding_type": "rotary"}, "position_embedding_type = 'rotary'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True"),
        ("gpt2", {"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn = True"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention = True"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights = False"),
        ("gpt2", {"activation_function": "tanh"}, "activation_function = 'tanh'"),
        ("gpt2", {"a_new_trick": 3}, "a_new_trick = 3 is not known"),
        ("gpt2", {"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ("gpt2", {"n_embd": None}, "'n_embd' is None"),
        ("gpt2", {"model_type": "bloom"}, "model_type 'bloom' is not supported; gpt2 and llama are"),
    ],
)
def test_a_field_that_changes_the_model_is_refused_by_name(family, fields, message, their_folder, edit_config):
    folder = their_folder(family)
    edit_config(folder, **fields)
    with pytest.raises(UserError) as error:
        read_config(folder)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("gpt2", {"n_ctx": 32, "summary_type": "mean", "task_specific_params": {"text": {"max_length": 50}}}),
        ("gpt2", {"a_new_trick": False, "another": None, "_name_or_path": "gpt2", "do_sample": True}),
        ("llama", {"rope_parameters": None, "rope_theta": 10000.0, "rope_scaling": None, "torch_dtype": "float16"}),
        ("llama", {"attention_dropout": 0.1, "initializer_range": 0.01, "pretraining_tp": 1}),
        ("llama", {"is_llama_config": True, "rope_interleaved": False, "transformers.js_config": {"dtype": "q4"}}),
        ("llama", {"unsloth_version": "2024.9", "gradient_checkpointing": True, "neftune_noise_alpha": 5.0}),
        ("llama", {"quantization_config": None, "quantization": None, "base_model_name_or_path": "x", "lora_r": 8}),
        ("llama", {"auto_map": {"AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM", "AutoConfig": "c.My"}}),
        ("llama", {"head_dim": 8, "layer_types": ["full_attention"] * 2, "sliding_window": None, "rope_scaling": None}),
        ("llama", {"sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 21, "logit_scale": 1.0}),
        ("llama", {"sliding_window": 32, "is_causal": True, "position_embedding_type": "rope", "hidden_dropout": 0.1}),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 1.0}, "partial_rotary_factor": 1.0, "d_model": 32}),
        ("llama", {"_attn_implementation_autoset": True, "num_nextn_predict_layers": 0, "max_new_tokens": 100}),
        ("gpt2", {"hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 32, "head_dim": 8}),
        ("gpt2", {"use_bias": True, "attention_dropout": 0.1, "model_max_length": 1024, "fp16": True}),
    ],
)
def test_fields_that_change_nothing_are_passed_over(family, fields, their_folder, edit_config):
    folder = their_folder(family)
    before = read_config(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    assert read_config(folder) == before


@pytest.mark.parametrize("where", ["rope_theta", "rope_parameters"])
def test_the_rotation_is_read_in_either_spelling(where, their_folder, edit_config):
    folder = their_folder("llama")
    new = {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    edit_config(folder, **(new if where == "rope_parameters" else {"rope_parameters": None, "rope_theta": 500_000}))
    assert read_config(folder).positions.theta == 5e5


def test_what_is_no_folder_of_theirs_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no Hugging Face folder: it has no config\.json"):
        read_pretrained(tmp_path / "nowhere")
    for content, message in (
        ("[]", "expected a JSON object, got list"),
        ("{}", "lacks 'model_type'"),
        ('{"model_type": "llama", "mlp_bias": false, "mlp_bias": true}', "the key 'mlp_bias' appears twice"),
    ):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(UserError, match=message):
            read_pretrained(tmp_path)


def test_a_weight_that_is_stored_twice_is_refused(their_folder):
    folder = their_folder("gpt2")
    weights = load_file(folder / "model.safetensors")
    weights["ln_f.weight"] = weights["transformer.ln_f.weight"] + 1
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match="are the same weight"):
        read_pretrained(folder)


def test_buffers_are_known_by_their_whole_name(their_folder):
    folder = their_folder("gpt2")
    weights = load_file(folder / "model.safetensors")
    known = {"transformer.h.1.attn.bias": torch.ones(1, 1, 4, 4), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    save_file(weights | known, folder / "model.safetensors")
    read_pretrained(folder)
    for strange in ("foo.h.99.cross_attn.bias", "transformer.h.1.attn.bias"):
        save_file(weights | {strange: torch.ones(32)}, folder / "model.safetensors")
        with pytest.raises(UserError, match=f"no weight {strange}"):
            read_pretrained(folder)


@pytest.mark.parametrize(("field", "value"), [("n_layer", 10**9), ("vocab_size", 2**62), ("n_layer", 20_000)])
def test_sizes_are_not_believed_before_the_weights_bear_them_out(their_folder, field, value):
    folder = their_folder("gpt2")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(UserError, match=r"config\.json wants"):
        check_pretrained(folder)


def test_fields_of_published_models_that_change_nothing(their_folder):
    folder = their_folder("gpt2")
    config = json.loads((folder / "config.json").read_text())
    more = {"n_special": 0, "predict_special_tokens": True, "_num_labels": 1, "output_past": True}
    (folder / "config.json").write_text(json.dumps(config | more))
    read_config(folder)
