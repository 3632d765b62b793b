"""A run that begins from a Hugging Face folder."""

import json
import shutil

import pytest
import tokenizers
import torch
import transformers
from tokenizers.processors import TemplateProcessing

from spikeless.data import prepare, validation_batches
from spikeless.errors import SpikelessWarning, UserError
from spikeless.recipes import compose
from spikeless.training.export import export
from spikeless.training.loop import train
from spikeless.training.trained import load_trained

FAMILIES = pytest.mark.parametrize("family", ["gpt2", "llama"])
QUICK = [
    *("steps=2", "precision=fp32", "device=cpu", "data.batch_size=4", "schedule.warmup_steps=1"),
    *("evaluation.tokens=256", "checkpoint.every=1", "metrics.loggers=()", "data.tokenizer=bytes"),
]


def settings(corpus, *more):
    return [*QUICK, f"data.spec={corpus}", *more]


@FAMILIES
def test_the_first_validation_loss_is_what_transformers_computes(family, their_folder, corpus, tmp_path):
    """The recipe is of the other family and of other sizes: all of that comes from the folder."""
    folder = their_folder(family)
    run = compose("llama_nano" if family == "gpt2" else "gpt2_nano", [], settings(corpus), str(folder))
    record = train(run, tmp_path / "run")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    data = prepare(corpus, "bytes", validation_fraction=run.data.validation_fraction)
    total, tokens = 0.0, 0
    with torch.no_grad():
        for inputs, targets in validation_batches(data.validation, 32, 4, 256):
            logits = theirs(inputs).logits.flatten(0, 1)
            total += torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="sum").item()
            tokens += targets.numel()
    assert record.rows[0]["val_loss"] == pytest.approx(total / tokens, rel=1e-6)
    assert record.rows[-1]["loss"] < record.rows[0]["val_loss"] + 1


def test_model_and_tokenizer_are_the_folders_and_are_recorded(their_folder, corpus, tmp_path, tokenizer):
    folder = their_folder("llama")
    inherited = [each for each in settings(corpus) if "tokenizer" not in each]
    run = compose("gpt2_nano", [], inherited, str(folder))
    assert (run.model.family, run.model.num_kv_heads, run.data.sequence_length) == ("llama", 2, 32)
    train(run, tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "run.json").read_text())
    assert stored["config"]["init_from"] == stored["init_from"]["folder"] == str(folder)
    assert len(stored["init_from"]["weights"]) == 64
    trained = load_trained(tmp_path / "run")
    assert trained.tokenizer.fingerprint() == tokenizer.fingerprint()


def test_the_hash_is_of_the_weights(their_folder, corpus, tmp_path):
    hashes = []
    for number, theta in enumerate((1e4, 1e4, 5e5)):
        folder = their_folder("llama", rope_parameters={"rope_type": "default", "rope_theta": theta})
        if number == 2:
            model = transformers.AutoModelForCausalLM.from_pretrained(folder)
            model.lm_head.weight.data[0, 0] += 1
            model.save_pretrained(folder)
        out = tmp_path / str(number)
        train(compose("gpt2_nano", [], settings(corpus, "steps=1"), str(folder)), out)
        hashes.append(json.loads((out / "run.json").read_text())["init_from"]["weights"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_resume_needs_the_folder_no_more_and_ends_in_the_same_bits(their_folder, corpus, tmp_path):
    folder = their_folder("gpt2")
    whole = settings(corpus, "steps=4", "schedule=constant(warmup_steps=1)")
    begun = settings(corpus, "steps=2", "schedule=constant(warmup_steps=1)")
    train(compose("gpt2_nano", ["embed_detach"], whole, str(folder)), tmp_path / "whole")
    out = tmp_path / "run"
    train(compose("gpt2_nano", ["embed_detach"], begun, str(folder)), out)
    before = json.loads((out / "run.json").read_text())["init_from"]
    shutil.rmtree(folder)
    train(compose("gpt2_nano", ["embed_detach"], whole, str(folder), begun=out), out, resume=True)
    assert json.loads((out / "run.json").read_text())["init_from"] == before
    a, b = (load_trained(each).model.state_dict() for each in (tmp_path / "whole", out))
    assert all(torch.equal(each, b[name]) for name, each in a.items())


def test_special_tokens_of_a_foreign_tokenizer_go_in_and_out(their_folder, corpus, tmp_path, tokenizer):
    """Llama's way: bos and eos differ, there is a pad token, and a template puts bos before a text."""
    folder = their_folder("llama")
    foreign = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    foreign.add_special_tokens(["<s>", "</s>", "<pad>"])
    foreign.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 257)])
    foreign.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    inherited = [each for each in settings(corpus) if "tokenizer" not in each]
    train(compose("gpt2_nano", [], inherited, str(folder)), tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out")
    before, after = (transformers.AutoTokenizer.from_pretrained(each) for each in (folder, tmp_path / "out"))
    assert {name: getattr(after, name) for name in names} == names
    assert after("a text").input_ids == before("a text").input_ids
    assert after("a text").input_ids[0] == 257
    ids = {"bos_token_id": 257, "eos_token_id": 258, "pad_token_id": 259}
    for name in ("config.json", "generation_config.json"):
        stored = json.loads((tmp_path / "out" / name).read_text())
        assert {key: stored[key] for key in ids} == ids


# --- techniques ---


@pytest.mark.parametrize("technique", ["mlra", "embed_norm", "embed_std_one"])
def test_a_technique_whose_parameters_are_not_there_is_refused(technique, their_folder, corpus):
    """The head is tied, so `embed_std_one`, which unties it, has no weights for it."""
    with pytest.raises(UserError, match=rf"^{technique}: .* has no weights for (blocks|embedding|head)\."):
        compose("gpt2_nano", ["embed_detach", technique], settings(corpus), str(their_folder("gpt2")))


def test_a_setting_that_changes_a_shape_is_refused(their_folder, corpus):
    with pytest.raises(UserError, match=r"the settings of model\.\*: .* has no weights for positions\.weight"):
        compose(
            "gpt2_nano",
            [],
            settings(corpus, "model.context_length=16", "data.sequence_length=16"),
            str(their_folder("gpt2")),
        )


def test_a_technique_that_changes_the_function_is_said(their_folder, corpus):
    folder = str(their_folder("gpt2"))
    with pytest.warns(SpikelessWarning, match=r"differs from that in .*: model\.embedding\.multiplier: 1\.0 -> 5\.6"):
        run = compose("gpt2_nano", ["scaled_embed"], settings(corpus), folder)
    assert run.model.embedding.multiplier == pytest.approx(32**0.5)


def test_an_initialisation_has_no_effect_and_that_is_said(their_folder, corpus):
    with pytest.warns(SpikelessWarning, match=r"no effect, the weights come from .*: init\.scheme"):
        compose("gpt2_nano", ["small_init"], settings(corpus), str(their_folder("gpt2")))


def test_a_technique_that_keeps_the_function_is_silent(their_folder, corpus):
    compose("gpt2_nano", ["embed_detach"], settings(corpus), str(their_folder("gpt2")))


def test_the_folder_is_not_a_setting(their_folder, corpus):
    with pytest.raises(UserError, match="'init_from' is a record; use --init-from"):
        compose("gpt2_nano", [], settings(corpus, "init_from=x"))
