"""The embedding of every family that transformers builds, saved by it, against what its own modules hold and do."""

import pytest
import torch
import transformers as hf

SIZES = {"vocab_size": 61, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
KV = SIZES | {"num_key_value_heads": 1}
GEMMA = KV | {"head_dim": 8}
VISION = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 8}
SMALL_GPT = {"vocab_size": 61, "n_embd": 16, "n_layer": 1, "n_head": 2}
OPT = {"vocab_size": 61, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16}
BLOOM = {"vocab_size": 61, "hidden_size": 16, "n_layer": 1, "n_head": 2}
MPT = {"vocab_size": 61, "d_model": 16, "n_layers": 1, "n_heads": 2}
XGLM = {"vocab_size": 61, "d_model": 16, "num_layers": 1, "attention_heads": 2, "ffn_dim": 16}
QWEN3 = KV | {"head_dim": 8}

FAMILIES = {
    "gpt2": lambda: hf.GPT2Config(**SMALL_GPT),
    "llama": lambda: hf.LlamaConfig(**KV),
    "llama, tied": lambda: hf.LlamaConfig(**KV, tie_word_embeddings=True),
    "opt": lambda: hf.OPTConfig(**OPT, word_embed_proj_dim=16, max_position_embeddings=8),
    "opt, narrow table": lambda: hf.OPTConfig(**OPT, word_embed_proj_dim=8, max_position_embeddings=8),
    "bloom": lambda: hf.BloomConfig(**BLOOM),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**SIZES),
    "qwen2": lambda: hf.Qwen2Config(**KV),
    "qwen3": lambda: hf.Qwen3Config(**QWEN3),
    "gemma": lambda: hf.GemmaConfig(**GEMMA | {"hidden_size": 24}),
    "gemma2": lambda: hf.Gemma2Config(**GEMMA | {"hidden_size": 24}),
    "gemma3": lambda: hf.Gemma3TextConfig(**GEMMA | {"hidden_size": 24}),
    "mistral": lambda: hf.MistralConfig(**KV),
    "phi": lambda: hf.PhiConfig(**SIZES),
    "phi3": lambda: hf.Phi3Config(**SIZES, pad_token_id=0),
    "falcon": lambda: hf.FalconConfig(vocab_size=61, hidden_size=16, num_hidden_layers=1, num_attention_heads=2),
    "mpt": lambda: hf.MptConfig(**MPT),
    "granite": lambda: hf.GraniteConfig(**KV, embedding_multiplier=12.0),
    "xglm": lambda: hf.XGLMConfig(**XGLM),
}


def what_enters(model, rows):
    """The embedded tokens as the model's own first modules make them, without positions."""
    kept = {}
    kind, inner = model.config.model_type, model.base_model
    with torch.no_grad():
        embedded = model.get_input_embeddings()(torch.arange(rows))
        if kind == "bloom":
            return inner.word_embeddings_layernorm(embedded)
        if kind == "opt":
            project = inner.decoder.project_in
            return embedded if project is None else project(embedded)
        if kind == "granite":
            return embedded * inner.embedding_multiplier
        if kind == "falcon" or kind in ("gpt2", "mpt"):
            return embedded
        if kind in ("xglm",):
            return embedded
        hook = inner.layers[0].register_forward_pre_hook(
            lambda module, args, kwargs: kept.update(x=args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        )
        model(torch.arange(rows)[:, None])
        hook.remove()
    return kept["x"][:, 0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_family(family, dtype, tmp_path, read):
    model = hf.AutoModelForCausalLM.from_config(FAMILIES[family]()).to(dtype).eval()
    with torch.no_grad():  # a table with a mean, and a norm with weights: both must be seen
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1 + 0.02)
    model.save_pretrained(tmp_path)
    found = read(tmp_path)
    table = model.get_input_embeddings().weight
    expected = table.detach().double().std(1, correction=0)
    assert (found.rows, found.width) == table.shape
    assert found.mean == pytest.approx(float(expected.mean()), rel=1e-6)
    assert found.std == pytest.approx(float(expected.std(correction=0)), rel=1e-5)
    effective = what_enters(model.float() if family in ("bloom", "opt, narrow table") else model, found.rows)
    effective = effective.double().std(1, correction=0)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-3  # the model rounds what it computes to bf16, we do not
    assert found.effective_mean == pytest.approx(float(effective.mean()), rel=tolerance)
    assert found.effective_std == pytest.approx(float(effective.std(correction=0)), rel=tolerance * 10)
    head = model.get_output_embeddings()
    assert found.tied == (head.weight is table)
    assert found.parameters == sum(each.numel() for each in model.parameters())
    assert found.dtype == {torch.float32: "F32", torch.bfloat16: "BF16"}[dtype]
    assert found.padded_rows == 0


def test_a_multimodal_model(tmp_path, read):
    vision = hf.SiglipVisionConfig(**VISION, patch_size=4)
    config = hf.Gemma3Config(text_config=hf.Gemma3TextConfig(**GEMMA), vision_config=vision, mm_tokens_per_image=4)
    model = hf.Gemma3ForConditionalGeneration(config)
    model.save_pretrained(tmp_path)
    found = read(tmp_path)
    expected = model.get_input_embeddings().weight.detach().std(1, correction=0)
    assert found.tensor.endswith("language_model.embed_tokens.weight") or "language_model" in found.tensor
    assert found.mean == pytest.approx(float(expected.mean()), rel=1e-6)
    assert found.effective_mean == pytest.approx(4 * found.mean, rel=1e-6)


def test_gemma_rounds_its_multiplier_to_the_type_it_computes_in(folder, read):
    table = {"model.embed_tokens.weight": torch.randn(20, 3072).bfloat16()}
    for dtype, multiplier in (("bfloat16", 55.5), ("float32", 3072**0.5)):
        config = {"model_type": "gemma", "dtype": dtype}
        found = read(folder(table, config, name=dtype))
        assert found.effective_mean / found.mean == pytest.approx(multiplier, rel=1e-6)


def test_a_model_without_a_head_does_not_say_whether_it_is_tied(tmp_path, read):
    hf.LlamaModel(hf.LlamaConfig(**KV)).save_pretrained(tmp_path)
    assert read(tmp_path).tied is None


def test_shards(tmp_path, read):
    model = hf.AutoModelForCausalLM.from_config(FAMILIES["llama"]())
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="4KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    one, many = read(tmp_path / "one"), read(tmp_path / "many")
    assert (one.mean, one.std, one.tied, one.parameters) == (many.mean, many.std, many.tied, many.parameters)
