"""Finding the table, the head and what lies beside them, in files that are not quite as usual."""

import pytest
import torch

from spikeless.errors import UserError

TABLE = torch.randn(10, 4)


@pytest.mark.parametrize(
    "name",
    [
        "wte.weight",
        "word_embeddings.weight",
        "transformer.wte.weight",
        "model.decoder.embed_tokens.weight",
        "model.language_model.embed_tokens.weight",
        "language_model.model.embed_tokens.weight",
        "gpt_neox.embed_in.weight",
        "tok_embeddings.weight",
        "backbone.embeddings.weight",
        "embedding.weight",
    ],
)
def test_names(folder, read, name):
    others = {"wpe.weight": TABLE, "h.0.attn.weight": TABLE, "vision_tower.embeddings.weight": TABLE}
    others |= {"model.layers.61.embed_tokens.weight": TABLE, "model.embed_positions.weight": TABLE}
    assert read(folder({name: TABLE + 1, **others})).tensor == name


def test_no_embedding(folder, read):
    path = folder({"lora.a": TABLE, "lora.b": torch.zeros(4, 2), "bias": torch.zeros(3)})
    message = (
        r"no input embedding found; the matrices are: lora\.a \[10, 4\], lora\.b \[4, 2\]\. Name one with --tensor"
    )
    with pytest.raises(UserError, match=message):
        read(path)
    assert read(path, "lora.a").rows == 10
    with pytest.raises(UserError, match=r"has no matrix 'lora\.c'; did you mean"):
        read(path, "lora.c")
    with pytest.raises(UserError, match="has no matrix 'bias'"):
        read(path, "bias")


def test_several_embeddings(folder, read):
    tables = {"model.embed_tokens.weight": TABLE, "model.small.embed_tokens.weight": TABLE[:3].clone()}
    with pytest.raises(UserError, match="several input embeddings"):
        read(folder(tables))
    assert read(folder(tables, {"vocab_size": 10}, name="with")).tensor == "model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("head", "config", "tied"),
    [
        (TABLE.clone(), {"tie_word_embeddings": False}, True),  # the numbers decide
        (TABLE + 1, {"tie_word_embeddings": True}, False),
        (TABLE.bfloat16(), {}, False),
        (TABLE[:5].clone(), {}, False),
        (None, {"tie_word_embeddings": False}, None),
        (None, {"tie_word_embeddings": True}, True),
        (None, {"architectures": ["LlamaForCausalLM"]}, True),
        (None, {"architectures": ["LlamaModel"]}, None),
        (None, None, None),
    ],
)
def test_tied_or_not(folder, read, head, config, tied):
    tensors = {"model.embed_tokens.weight": TABLE} | ({} if head is None else {"lm_head.weight": head})
    assert read(folder(tensors, config)).tied is tied


def test_a_head_that_differs_is_not_read_to_its_end(folder, read, monkeypatch):
    from spikeless.weights.regular import RegularFile

    table = torch.randn(4096, 256)
    path = folder({"model.embed_tokens.weight": table, "lm_head.weight": table + 1}, {"model_type": "llama"})
    fetched = []
    read_into = RegularFile.read_into
    monkeypatch.setattr(RegularFile, "read_into", lambda self, b, o: (fetched.append(len(b)), read_into(self, b, o))[1])
    read(path)
    assert sum(fetched) < table.numel() * 4 + (1 << 18)


@pytest.mark.parametrize(("config", "known"), [(None, False), ({}, False), ({"model_type": "llama"}, True)])
def test_effective_is_not_claimed_without_a_configuration(folder, read, config, known):
    found = read(folder({"model.embed_tokens.weight": TABLE}, config))
    assert (found.effective_mean is not None) == known
    assert found.entry == ("none" if known else "unknown: no config.json")


def test_a_norm_after_the_positions_is_not_claimed(folder, read):
    tensors = {"bert.embeddings.word_embeddings.weight": TABLE, "bert.embeddings.LayerNorm.weight": torch.ones(4)}
    found = read(folder(tensors, {"model_type": "bert"}))
    assert found.effective_mean is None
    assert found.entry.startswith("unknown")


def test_buffers_are_no_parameters(folder, read):
    buffers = {"h.0.attn.bias": torch.zeros(1, 1, 8, 8), "h.0.attn.masked_bias": torch.tensor(0.0)}
    buffers["model.rotary_emb.inv_freq"] = torch.zeros(4)
    found = read(folder({"wte.weight": TABLE, "h.1.attn.bias": torch.zeros(5), **buffers}))
    assert found.parameters == 45


# --- rows that are not like the others ---


@pytest.mark.parametrize(
    ("config", "tokenizer", "padded"),
    [
        ({"vocab_size": 8}, None, 2),
        ({"vocab_size": 10}, {"model": {"vocab": {"a": 0, "b": 5}}, "added_tokens": [{"id": 6, "content": "c"}]}, 3),
        ({"vocab_size": 10}, {"model": {"vocab": [["a", 0.0], ["b", 1.0]]}}, 8),
        ({"vocab_size": 12}, {"model": None, "added_tokens": 3}, 0),
        ({}, None, 0),
    ],
)
def test_padded_rows(folder, read, config, tokenizer, padded):
    found = read(folder({"wte.weight": TABLE}, config, tokenizer=tokenizer))
    assert found.padded_rows == padded
    if padded:
        expected = TABLE[: 10 - padded].std(1, correction=0)
        assert found.unpadded_mean == pytest.approx(float(expected.mean()), rel=1e-6)
    assert found.mean == pytest.approx(float(TABLE.std(1, correction=0).mean()), rel=1e-6)


def test_rows_that_are_not_finite_are_a_finding(folder, read):
    table = torch.randn(10, 4)
    table[3, 1], table[5] = torch.nan, torch.inf
    found = read(folder({"wte.weight": table}, {"model_type": "gpt2"}))
    good = table[[0, 1, 2, 4, 6, 7, 8, 9]].std(1, correction=0)
    assert found.non_finite_rows == 2
    assert found.mean == pytest.approx(float(good.mean()), rel=1e-6)
    assert found.effective_mean == pytest.approx(found.mean)
    nothing = read(folder({"wte.weight": torch.full((3, 2), torch.nan)}, name="nothing"))
    assert (nothing.mean, nothing.std, nothing.non_finite_rows) == (None, None, 3)


# --- fp8 ---


@pytest.mark.parametrize(
    ("name", "scale"), [("weight_scale", torch.tensor([0.5])), ("weight_scale_inv", torch.rand(10, 1))]
)
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_fp8_with_a_scale(folder, read, dtype, name, scale):
    stored = TABLE.to(dtype)
    found = read(folder({"embed_tokens.weight": stored, f"embed_tokens.{name}": scale}))
    assert found.mean == pytest.approx(float((stored.double() * scale).std(1, correction=0).mean()), rel=1e-6)
    assert found.notes[0].startswith(f"scaled by embed_tokens.{name}")


def test_fp8_without_a_scale_says_so(folder, read):
    found = read(folder({"embed_tokens.weight": TABLE.to(torch.float8_e4m3fn)}))
    assert "without a scale" in found.notes[0]


def test_fp8_in_blocks_is_refused(folder, read):
    tensors = {"embed_tokens.weight": TABLE.to(torch.float8_e4m3fn), "embed_tokens.weight_scale_inv": torch.ones(5, 2)}
    with pytest.raises(UserError, match="scales blocks"):
        read(folder(tensors))


@pytest.mark.parametrize(
    ("config", "entry"),
    [
        ({"model_type": "bloom", "layer_norm_epsilon": None}, "LayerNorm"),
        ({"model_type": "bloom", "layer_norm_epsilon": "abc"}, "LayerNorm"),
        ({"model_type": "bloom", "architectures": 5}, "LayerNorm"),
    ],
)
def test_strange_values_beside_the_weights(folder, read, config, entry):
    norm = "transformer.word_embeddings_layernorm"
    tensors = {"transformer.word_embeddings.weight": torch.randn(9, 8)}
    tensors |= {f"{norm}.weight": torch.ones(8), f"{norm}.bias": torch.zeros(8)}
    assert read(folder(tensors, config)).entry == entry
    tensors |= {f"{norm}.weight": torch.ones(7)}
    assert read(folder(tensors, config, name="other")).entry == "unknown: a norm of another width"


@pytest.mark.parametrize(("value", "entry"), [(10**400, "unknown"), (True, "unknown"), ("2", "unknown"), (2, "× 2")])
def test_strange_multipliers(folder, read, value, entry):
    config = {"model_type": "granite", "embedding_multiplier": value}
    assert read(folder({"model.embed_tokens.weight": torch.randn(9, 8)}, config)).entry.startswith(entry)


def test_a_projection_of_another_width(folder, read):
    tensors = {"decoder.embed_tokens.weight": torch.randn(9, 8), "decoder.project_in.weight": torch.randn(16, 7)}
    assert read(folder(tensors, {"model_type": "opt"})).entry == "unknown: a projection of another width"
