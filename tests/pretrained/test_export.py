"""`export`: verified before it appears, loaded by plain `transformers`, nothing left behind on a refusal."""

import dataclasses
import json
import os
import shutil

import pytest
import torch
import transformers
import yaml
from safetensors import safe_open

from spikeless.config import replace_at
from spikeless.errors import UserError
from spikeless.pretrained import verify as verification
from spikeless.pretrained import write as writing
from spikeless.training.checkpoints import Checkpoints
from spikeless.training.export import export
from spikeless.training.loop import train
from spikeless.training.trained import load_trained

TEXTS = ["The sea.", "  two  spaces\n\ttab", "naïve 日本語 🙂", "<|endoftex|>", ""]
TECHNIQUES = {"gpt2": ["embed_norm", "mlra"], "llama": ["scaled_embed", "mlra"]}


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def trained(request, tmp_path_factory, tiny_run, corpus):
    """A run of two steps with techniques that must be folded; do not change it."""
    run = tiny_run(request.param, *TECHNIQUES[request.param])
    changes = {
        "data.spec": corpus,
        "data.tokenizer": "bytes",
        "model.vocab_size": None,
        "steps": 2,
        "precision": "fp32",
    }
    changes |= {"data.batch_size": 4, "evaluation.tokens": 128, "checkpoint.every": 1, "metrics.loggers": ()}
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(replace_at(run, changes), folder)
    return folder


def edit_checkpoint(folder, out, change):
    """A copy of a run whose newest checkpoint has changed weights."""
    shutil.copytree(folder, out)
    checkpoints = Checkpoints(out)
    newest = checkpoints.newest()
    shutil.rmtree(checkpoints.path(newest.step))
    checkpoints.save(dataclasses.replace(newest, model=change(newest.model)))
    return out


def nothing_is_left(folder):
    return not [each for each in folder.iterdir() if each.name.startswith((".out", "out"))]


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_plain_transformers_loads_what_was_exported(dtype, trained, tmp_path):
    agreement = export(trained, tmp_path / "out", dtype=dtype)
    assert agreement.reader == f"transformers {transformers.__version__}"
    assert agreement.difference <= agreement.tolerance
    assert (agreement.rounding > 0) is (dtype != "fp32")
    ours = load_trained(trained)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values())
    assert str(theirs.dtype) == {"fp32": "torch.float32", "bf16": "torch.bfloat16", "fp16": "torch.float16"}[dtype]
    tokens = torch.randint(257, (2, 32))
    with torch.no_grad():
        a, b = ours.model(tokens), theirs.float().eval()(tokens).logits
    assert (a - b).abs().max() <= (1e-5 if dtype == "fp32" else 0.02) * max(1.0, a.abs().max().item())


def test_the_tokenizer_is_the_runs(trained, tmp_path):
    export(trained, tmp_path / "out")
    ours, theirs = (
        load_trained(trained).tokenizer,
        transformers.AutoTokenizer.from_pretrained(tmp_path / "out"),
    )
    assert [theirs(each)["input_ids"] for each in TEXTS] == [ours.encode(each) for each in TEXTS]
    assert theirs.decode(ours.encode(TEXTS[2])) == TEXTS[2]
    assert (theirs.eos_token, theirs.eos_token_id) == ("<|endoftext|>", ours.end_of_text)
    assert theirs.model_max_length == 32
    assert theirs.encode("<|endoftext|>") == [256], "unlike in training, where it is text: see docs/export.md"
    assert len(ours.encode("<|endoftext|>")) > 1


def test_generation_needs_nothing_more(trained, tmp_path, caplog):
    export(trained, tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    config = transformers.GenerationConfig.from_pretrained(tmp_path / "out")
    assert config.eos_token_id == config.bos_token_id == config.pad_token_id == tokenizer.eos_token_id
    assert model.config.eos_token_id == model.config.bos_token_id == tokenizer.eos_token_id
    model.generate(**tokenizer("word", return_tensors="pt"), max_new_tokens=4, do_sample=False)
    assert not [each for each in caplog.records if "pad_token_id" in each.message]


def test_no_trace_of_a_technique_is_left(trained, tmp_path):
    export(trained, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    theirs = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    known = set(type(theirs)().to_dict()) | {"torch_dtype", "rope_theta"}
    assert set(config) <= known
    assert config["tie_word_embeddings"] is False
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert "lm_head.weight" in file.keys()  # noqa: SIM118


def test_large_weights_go_into_shards(trained, tmp_path):
    export(trained, tmp_path / "out", max_shard_size="30KB")
    shards = sorted((tmp_path / "out").glob("model-*.safetensors"))
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert len(shards) > 2
    assert set(index["weight_map"].values()) == {each.name for each in shards}
    assert sum(each.stat().st_size for each in shards) > index["metadata"]["total_size"]


def test_one_checkpoint_of_a_run(trained, tmp_path):
    export(Checkpoints(trained).path(1), tmp_path / "first")
    export(trained, tmp_path / "last")
    files = [(tmp_path / each / "model.safetensors").read_bytes() for each in ("first", "last")]
    assert files[0] != files[1]
    assert "| steps, tokens | 1, 128 |" in (tmp_path / "first" / "README.md").read_text()


def test_the_same_checkpoint_gives_the_same_bytes(trained, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        export(trained, tmp_path / name / "out")
    for path in (tmp_path / "a" / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "out" / path.name).read_bytes(), path.name


# --- the model card ---


def test_the_model_card(trained, tmp_path):
    export(trained, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert (head["library_name"], head["pipeline_tag"]) == ("transformers", "text-generation")
    assert "spikeless" in head["tags"]
    stored = json.loads((trained / "run.json").read_text())
    last = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()][-1]
    for part in (
        stored["data_hash"],
        "not a resume point",
        f"{last['val_loss']:.4f}",
        *stored["techniques"],
        "Licence",
    ):
        assert part in text
    for change in stored["diff"]:
        assert f"| `{change['path']}` |" in text
    assert str(trained.parent) not in text
    assert os.path.dirname(stored["config"]["data"]["spec"].removeprefix("text:")) not in text  # noqa: PTH120
    assert "text:…/*.txt" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("text:/home/me/notes/**/*.md,validation=/srv/x/a.md", "text:…/*.md,validation=…/a.md"),
        ("text:notes/deep/*.md", "text:notes/deep/*.md"),
        ("hf:~/models/mine", "hf:…/mine"),
        ("mix:0.7*shards:/data/a+0.3*shards:/data/b", "mix:0.7*shards:…/a+0.3*shards:…/b"),
        ("hf:org/name", "hf:org/name"),
        (r"text:C:\Users\me\a.txt", "text:…/a.txt"),
        (1e-3, "0.001"),
    ],
)
def test_no_machine_path_is_shown(value, shown):
    from spikeless.pretrained.card import _without_machine_paths

    assert _without_machine_paths(value) == shown


# --- what is refused ---


def test_an_existing_folder_is_refused(trained, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="already exists"):
        export(trained, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "fp8"}, r"--dtype 'fp8' is unknown; did you mean 'fp"),
        ({"max_shard_size": "five"}, "--max-shard-size 'five' is no size"),
        ({"max_shard_size": "-1GB"}, "--max-shard-size '-1GB' is no size"),
    ],
)
def test_wrong_options_leave_nothing_behind(options, message, trained, tmp_path):
    with pytest.raises(UserError, match=message):
        export(trained, tmp_path / "out", **options)
    assert nothing_is_left(tmp_path)


def test_weights_that_are_not_finite_are_named(trained, tmp_path):
    def spoil(weights):
        weights["blocks.1.ffn.up.weight"][0, 0] = torch.nan
        return weights

    run = edit_checkpoint(trained, tmp_path / "run", spoil)
    with pytest.raises(UserError, match=r"blocks\.1\.ffn\.up\.weight is not finite"):
        export(run, tmp_path / "out")
    assert nothing_is_left(tmp_path)


def test_what_fp16_cannot_hold_is_named(trained, tmp_path):
    def grow(weights):
        weights["final_norm.weight"][0] = 1e6
        return weights

    run = edit_checkpoint(trained, tmp_path / "run", grow)
    with pytest.raises(UserError, match=r"reaches 1e\+06, which torch\.float16 cannot hold; use --dtype bf16"):
        export(run, tmp_path / "out", dtype="fp16")
    assert nothing_is_left(tmp_path)
    export(run, tmp_path / "out", dtype="bf16")


def test_attention_scores_of_hundreds_are_rounding_not_an_error(trained, tmp_path):
    """Factors merged in fp32 may differ by more than 1e-5 then, as any two fp32 programs do."""

    def grow(weights):
        return {name: each * 6 if ".attention." in name else each for name, each in weights.items()}

    run = edit_checkpoint(trained, tmp_path / "run", grow)
    agreement = export(run, tmp_path / "out")
    assert agreement.difference <= agreement.tolerance


def test_a_corrupted_checkpoint_is_refused(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    for path in run.glob("checkpoints/*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="corrupted"):
        export(Checkpoints(run).path(2), tmp_path / "out")
    assert nothing_is_left(tmp_path)


# --- the verification ---


def break_weights(monkeypatch, name):
    whole = writing._stored

    def stored(key, tensor, dtype):
        return whole(key, tensor * 1.01 if key == name else tensor, dtype)

    monkeypatch.setattr(writing, "_stored", stored)


def test_a_tensor_that_was_written_wrongly_is_found_and_named(trained, tmp_path, monkeypatch):
    family = load_trained(trained).run.model.family
    theirs = {"gpt2": "transformer.h.1.mlp.c_fc.weight", "llama": "model.layers.1.mlp.up_proj.weight"}[family]
    break_weights(monkeypatch, theirs)
    with pytest.raises(UserError, match=r"nothing was exported.*blocks\.1\.ffn\.up\.weight was written wrongly"):
        export(trained, tmp_path / "out")
    assert nothing_is_left(tmp_path)


def test_a_config_that_describes_another_model_is_found(trained, tmp_path, monkeypatch):
    whole = writing.describe

    def wrong(config):
        return {
            name: 0.5 if name in ("layer_norm_epsilon", "rms_norm_eps") else each
            for name, each in whole(config).items()
        }

    monkeypatch.setattr(writing, "describe", wrong)
    with pytest.raises(UserError, match="every tensor was written as it was meant"):
        export(trained, tmp_path / "out")
    assert nothing_is_left(tmp_path)


def test_a_wrong_fold_is_found(trained, tmp_path, monkeypatch):
    import spikeless.training.export as exporting

    whole = exporting.fold

    def wrong(model):
        plain = whole(model)
        plain.embedding.weight.data[:, 0] += 0.1
        return plain

    monkeypatch.setattr(exporting, "fold", wrong)
    with pytest.raises(UserError, match="folding the techniques into plain weights changes a logit"):
        export(trained, tmp_path / "out")
    assert nothing_is_left(tmp_path)


def test_a_tokenizer_that_encodes_otherwise_is_found(trained, tmp_path, monkeypatch):
    whole = writing._write_tokenizer

    def wrong(tokenizer, folder, *sizes):
        ids = whole(tokenizer, folder, *sizes)
        path = folder / "tokenizer.json"
        path.write_text(path.read_text().replace('"add_prefix_space":false', '"add_prefix_space":true'))
        return ids

    monkeypatch.setattr(writing, "_write_tokenizer", wrong)
    with pytest.raises(UserError, match=r"tokenizes 'The sea, the sea\.' otherwise"):
        export(trained, tmp_path / "out")
    assert nothing_is_left(tmp_path)


def test_without_transformers_our_own_reader_verifies_and_says_so(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "find_spec", lambda name: None)
    assert export(trained, tmp_path / "out").reader == "our own reader (transformers is not installed)"
