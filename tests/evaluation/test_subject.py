"""What can be evaluated: runs, checkpoints, Hugging Face folders of our families and of others."""

import json
import shutil
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from spikeless.config import replace_at
from spikeless.errors import SpikelessWarning, UserError
from spikeless.evaluation import evaluate_perplexity, load_subject
from spikeless.evaluation.scorer import ForeignScorer, TransformerScorer
from spikeless.training.checkpoints import Checkpoints
from spikeless.training.export import export
from spikeless.training.loop import train

CPU = torch.device("cpu")
DOCUMENTS = ["the cat sat on the mat. " * 4, "naïve 🙂"]
SMALL = {"vocab_size": 257, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "bos_token_id": 256}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, tiny_run):
    folder = tmp_path_factory.mktemp("run")
    for number in range(10):
        (folder / f"{number}.txt").write_text(f"note {number}: the cat sat on the mat, the dog on the rug. " * 8)
    changes = {
        "model.vocab_size": None,
        "data.spec": f"text:{folder}/*.txt",
        "data.tokenizer": "bytes",
        "data.validation_fraction": 0.3,
        "evaluation.tokens": 64,
        "checkpoint.every": 1,
        "steps": 2,
        "optim.lr": 0.1,
        "schedule.warmup_steps": 1,
        "precision": "fp32",
        "metrics.loggers": (),
    }
    train(replace_at(tiny_run("gpt2", "scaled_embed", "mlra"), changes), folder / "run")
    return folder / "run"


@pytest.fixture
def neox(tmp_path, bytes_tokenizer):
    """A model that is not of our families, as `transformers` saves it."""
    folder = tmp_path / "neox"
    config = transformers.GPTNeoXConfig(**SMALL, intermediate_size=48, max_position_embeddings=24, eos_token_id=256)
    transformers.GPTNeoXForCausalLM(config).save_pretrained(folder)
    bytes_tokenizer.save(folder)
    return folder


def test_a_run_its_checkpoint_and_its_export_are_one_model(run_folder, tmp_path):
    export(run_folder, tmp_path / "out")
    folders = (run_folder, Checkpoints(run_folder).path(2), tmp_path / "out", Checkpoints(run_folder).path(1))
    subjects = [load_subject(folder, device=CPU) for folder in folders]
    assert all(isinstance(subject.scorer, TransformerScorer) for subject in subjects)
    assert {(subject.prefix, subject.tokenizer.reading.beginning) for subject in subjects} == {((256,), ())}
    last, same, exported, before = [evaluate_perplexity(subject, DOCUMENTS).loss for subject in subjects]
    assert last == same
    assert exported == pytest.approx(last, rel=1e-5)
    assert abs(before - last) > 0.01
    assert [subject.validation_fraction for subject in subjects] == [0.3, 0.3, 0.04, 0.3]


def test_our_code_and_transformers_agree_on_one_folder(run_folder, tmp_path):
    export(run_folder, tmp_path / "out")
    ours = load_subject(tmp_path / "out", device=CPU)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    theirs = type(ours)(scorer=ForeignScorer(model, 32), tokenizer=ours.tokenizer)
    assert evaluate_perplexity(ours, DOCUMENTS).loss == pytest.approx(
        evaluate_perplexity(theirs, DOCUMENTS).loss, rel=1e-5
    )


def test_another_family_is_computed_by_transformers(neox):
    subject = load_subject(neox, device=CPU)
    assert isinstance(subject.scorer, ForeignScorer)
    assert (subject.scorer.context_length, subject.scorer.vocab_size, subject.prefix) == (24, 257, (256,))
    assert 4 < evaluate_perplexity(subject, DOCUMENTS).loss < 8
    assert load_subject(neox, device=CPU, bf16=True).scorer.model.dtype == torch.bfloat16


def test_without_transformers_it_says_what_is_lacking(neox, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        UserError, match=r"model_type 'gpt_neox' is not supported.*others need transformers: pip install"
    ):
        load_subject(neox, device=CPU)


def test_code_in_the_folder_is_never_run(neox):
    (neox / "modeling_evil.py").write_text("raise SystemExit('run')\n")
    config = json.loads((neox / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "modeling_evil.C", "AutoModelForCausalLM": "modeling_evil.M"},
    }
    (neox / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="transformers cannot load this model either"):
        load_subject(neox, device=CPU)


def test_pickled_weights_are_not_read(neox):
    weights = neox / "model.safetensors"
    weights.unlink()
    (neox / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match="it is a pickle"):
        load_subject(neox, device=CPU)


def test_a_missing_weight_is_not_made_up(neox):
    weights = load_file(neox / "model.safetensors")
    del weights["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"]
    save_file(weights, neox / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"dense_h_to_4h\.weight is missing"):
        load_subject(neox, device=CPU)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("gpt_neox.layers.2.input_layernorm.weight", torch.ones(32), "in the file, but the model has none"),
        ("gpt_neox.layers.0.mlp.gate.bias", torch.ones(8), "gate.bias is in the file, but the model has none"),
        ("lora_A.weight", torch.ones(8, 2), "lora_A.weight is in the file"),
        ("layers.0.input_layernorm.weight", torch.ones(32), "are the same weight"),
        ("gpt_neox.final_layer_norm.weight", torch.ones(32, dtype=torch.int8), "stored as I8"),
        ("gpt_neox.final_layer_norm.weight", torch.ones(31), "another shape"),
    ],
)
def test_a_weight_that_does_not_fit_is_not_passed_over(neox, name, tensor, message):
    weights = load_file(neox / "model.safetensors")
    save_file(weights | {name: tensor}, neox / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=message):
        load_subject(neox, device=CPU)


def test_buffers_wrappers_and_fields_that_nobody_knows(neox):
    before = evaluate_perplexity(load_subject(neox, device=CPU), DOCUMENTS).loss
    weights = {f"inner._orig_mod.{name}": each for name, each in load_file(neox / "model.safetensors").items()}
    mask = {"inner._orig_mod.gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 24, 24).bool()}
    save_file(weights | mask, neox / "model.safetensors", {"format": "pt"})
    assert evaluate_perplexity(load_subject(neox, device=CPU), DOCUMENTS).loss == before
    config = json.loads((neox / "config.json").read_text())
    (neox / "config.json").write_text(json.dumps(config | {"a_trick": 3, "unsloth_version": "1", "other": None}))
    with pytest.warns(SpikelessWarning, match="transformers does not know a_trick = 3, and computes without"):
        assert evaluate_perplexity(load_subject(neox, device=CPU), DOCUMENTS).loss == before


def test_a_llama_that_only_transformers_can_compute_is_read_as_strictly(tmp_path, bytes_tokenizer):
    config = transformers.LlamaConfig(**SMALL, intermediate_size=48, attention_bias=True, eos_token_id=256)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)
    bytes_tokenizer.save(tmp_path)
    right = load_subject(tmp_path, device=CPU)
    assert isinstance(right.scorer, ForeignScorer)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    for fields, message in (
        ({"attention_bias": False, "bias": True}, r"k_proj\.bias.* in the file, but the model has none"),
        ({"attention_bias": False}, r"the model has no weight .*\.bias"),
        ({"a_trick": 3}, "a_trick = 3 is known neither to us nor to transformers"),
    ):
        path.write_text(json.dumps(stored | fields))
        with pytest.raises(UserError, match=message):
            load_subject(tmp_path, device=CPU)


def test_tied_weights_that_differ_are_refused_in_another_family_too(tmp_path, bytes_tokenizer):
    config = transformers.Qwen2Config(
        **SMALL, num_key_value_heads=2, intermediate_size=48, tie_word_embeddings=True, eos_token_id=256
    )
    transformers.Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    bytes_tokenizer.save(tmp_path)
    loss = evaluate_perplexity(load_subject(tmp_path, device=CPU), DOCUMENTS).loss
    weights = load_file(tmp_path / "model.safetensors")
    table = weights.pop("model.embed_tokens.weight")
    save_file(weights | {"lm_head.weight": table}, tmp_path / "model.safetensors", {"format": "pt"})
    assert evaluate_perplexity(load_subject(tmp_path, device=CPU), DOCUMENTS).loss == loss
    both = {"lm_head.weight": table, "model.embed_tokens.weight": table + 1}
    save_file(weights | both, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lm_head\.weight is not the same as .*config\.json ties them"):
        load_subject(tmp_path, device=CPU)


def test_weights_that_lead_out_of_the_folder_are_not_read(neox, tmp_path):
    (neox / "model.safetensors").rename(tmp_path / "outside.safetensors")
    (neox / "model.safetensors").symlink_to(tmp_path / "outside.safetensors")
    with pytest.raises(UserError, match=r"leads out of|outside"):
        load_subject(neox, device=CPU)


def test_a_tied_model_of_another_family_and_one_that_does_not_say_its_length(tmp_path, bytes_tokenizer):
    config = transformers.BloomConfig(vocab_size=257, hidden_size=32, n_layer=2, n_head=4, eos_token_id=256)
    transformers.BloomForCausalLM(config).save_pretrained(tmp_path)
    bytes_tokenizer.save(tmp_path)
    subject = load_subject(tmp_path, device=CPU)
    assert evaluate_perplexity(subject, DOCUMENTS, sequence_length=16).sequence_length == 16
    with pytest.raises(UserError, match="give --sequence-length"):
        evaluate_perplexity(subject, DOCUMENTS)


def test_an_edited_description_of_a_run(run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "run")
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    described["config"]["model"]["width"] *= 2
    (tmp_path / "run" / "run.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=r"not of the model that .*run\.json describes"):
        load_subject(tmp_path / "run", device=CPU)


def test_a_damaged_folder_of_our_family_is_not_given_to_transformers(run_folder, tmp_path):
    export(run_folder, tmp_path / "out")
    (tmp_path / "out" / "model.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_subject(tmp_path / "out", device=CPU)


def test_the_tokenizer_may_come_from_elsewhere(neox, run_folder):
    (neox / "tokenizer.json").rename(neox / "elsewhere.json")
    with pytest.raises(UserError, match=r"holds no tokenizer.*or name another with --tokenizer"):
        load_subject(neox, device=CPU)
    for given in ("bytes", str(run_folder), str(run_folder / "tokenizer.json")):
        assert load_subject(neox, device=CPU, tokenizer=given).prefix == (256,)
    with pytest.raises(UserError, match="bpe:300 is learnt from text; give the one that the model was trained with"):
        load_subject(neox, device=CPU, tokenizer="bpe:300")
    with pytest.raises(UserError, match="no tokenizer is called 'byte'"):
        load_subject(neox, device=CPU, tokenizer="byte")


def test_text_that_needs_an_id_beyond_the_model_is_refused(neox, bpe_tokenizer, tmp_path):
    (tmp_path / "bpe").mkdir()
    bpe_tokenizer.save(tmp_path / "bpe")
    subject = load_subject(neox, device=CPU, tokenizer=str(tmp_path / "bpe"))
    assert subject.encode("x") == bpe_tokenizer.encode("x")
    with pytest.raises(
        UserError, match=r"the text 'the cat sat' needs the token .* has rows for ids below 257 only; give"
    ):
        subject.encode("the cat sat")


def test_documents_begin_with_bos_where_the_tokenizer_has_one(neox):
    """As Llama's: the token is named in the configuration, and put before every text."""
    path = neox / "tokenizer.json"
    definition = json.loads(path.read_text())
    definition["added_tokens"][0]["content"] = "<|endoftext|>"
    definition["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "a", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"a": {"id": "a", "ids": [97], "tokens": ["a"]}},
    }
    path.write_text(json.dumps(definition))
    config = json.loads((neox / "tokenizer_config.json").read_text())
    del config["spikeless"], config["reading"]
    (neox / "tokenizer_config.json").write_text(json.dumps(config | {"bos_token": "a"}))
    subject = load_subject(neox, device=CPU)
    assert (subject.prefix, subject.tokenizer.reading.beginning) == ((97,), (97,))
    (neox / "tokenizer_config.json").write_text(json.dumps(config | {"bos_token": "<s>"}))
    with pytest.raises(UserError, match=r"names the bos token '<s>', which tokenizer.json does not have"):
        load_subject(neox, device=CPU)


def test_what_is_no_folder_is_said(tmp_path):
    with pytest.raises(UserError, match="is no folder; give a run folder"):
        load_subject(tmp_path / "nowhere", device=CPU)
    with pytest.raises(UserError, match="neither a run folder"):
        load_subject(tmp_path, device=CPU)
    (tmp_path / "adapter_config.json").touch()
    with pytest.raises(UserError, match="holds an adapter"):
        load_subject(tmp_path, device=CPU)
