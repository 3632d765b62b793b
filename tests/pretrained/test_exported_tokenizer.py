"""The tokenizer of an export: what transformers 4 and 5 both read, and what training saw."""

import json
from pathlib import Path

import pytest
import torch

from spikeless.data import Reading, load_tokenizer
from spikeless.pretrained.write import write_pretrained

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(Path(__file__).parents[1] / "data"))
    from foreign import byte_level

transformers = pytest.importorskip("transformers")
END, BOS = "<|endoftext|>", "<s>"


@pytest.fixture
def exported(tmp_path, tiny_run, build):
    """Exports a tokenizer with a configuration and some changes to its definition; the folder and the tokenizer."""

    def make(reading=None, change=lambda definition: None, **config):
        folder = tmp_path / "theirs"
        folder.mkdir()
        definition = json.loads(byte_level(special=(END, BOS)).to_str())
        change(definition)
        (folder / "tokenizer.json").write_text(json.dumps(definition))
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END} | config))
        tokenizer = load_tokenizer(folder)
        tokenizer = tokenizer.with_reading(reading) if reading else tokenizer
        model = build(tiny_run("gpt2", vocab_size=300))
        (tmp_path / "out").mkdir()
        write_pretrained(model, tokenizer, tmp_path / "out", dtype=torch.float32)
        return tmp_path / "out", tokenizer

    return make


def read(folder, name="tokenizer_config.json"):
    return json.loads((folder / name).read_text())


@pytest.mark.parametrize(
    ("config", "listed", "named"),
    [
        ({"extra_special_tokens": [BOS]}, [BOS], None),
        ({"additional_special_tokens": [{"content": BOS}]}, [BOS], None),
        ({"extra_special_tokens": {"image_token": BOS}}, None, {"image_token": BOS}),
        ({"model_specific_special_tokens": {"image_token": BOS}}, None, {"image_token": BOS}),
    ],
)
def test_more_special_tokens_are_spelled_as_transformers_4_wants_them(exported, config, listed, named):
    """4.57 takes `extra_special_tokens` as an object only, and calls `.keys()` of a list."""
    folder, tokenizer = exported(tokenizer_class="TokenizersBackend", backend="tokenizers", is_local=True, **config)
    found = read(folder)
    assert (found.get("additional_special_tokens"), found.get("extra_special_tokens")) == (listed, named)
    assert found["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"model_specific_special_tokens", "backend", "is_local", "add_bos_token", "add_eos_token"} & found.keys()
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert theirs("a<s>b")["input_ids"] == tokenizer.encode("a<s>b")


def prefixed(definition):
    definition["pre_tokenizer"]["add_prefix_space"] = True


def test_a_prefix_space_is_said_since_transformers_4_takes_it_away_otherwise(exported):
    assert read(exported(change=prefixed)[0])["add_prefix_space"] is True


def padded(definition):
    definition["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    definition["padding"] = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None}
    definition["padding"] |= {"pad_id": 0, "pad_type_id": 0, "pad_token": END}


def test_what_training_did_not_do_is_left_out(exported):
    folder, tokenizer = exported(change=padded)
    assert transformers.AutoTokenizer.from_pretrained(folder)("a text of bytes")["input_ids"] == tokenizer.encode(
        "a text of bytes"
    )


@pytest.mark.parametrize(
    ("config", "reading", "bos"),
    [
        ({}, None, (None, 0)),
        ({"bos_token": BOS}, None, (0, 0)),
        ({"bos_token": BOS}, Reading(beginning=(1,)), (1, 1)),
        ({"bos_token": END}, Reading(beginning=(1,)), (1, 1)),
        ({}, Reading(beginning=(0, 1)), (1, 1)),
        ({"bos_token": BOS, "chat_template": "{{ bos_token }}"}, None, (1, 0)),
    ],
)
def test_readers_begin_as_training_did(exported, config, reading, bos):
    folder, tokenizer = exported(reading, **config)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert (theirs.bos_token_id, read(folder, "config.json")["bos_token_id"]) == bos
    assert theirs("a")["input_ids"] == [*tokenizer.reading.beginning, *tokenizer.encode("a")]
    assert load_tokenizer(folder).reading == tokenizer.reading


@pytest.mark.parametrize("how", ["text", "parsed", "all"])
def test_special_tokens_in_text_are_read_as_in_training(exported, how):
    folder, tokenizer = exported(Reading(special_tokens=how))
    text = "a<s>b" + (END if how != "parsed" else "")
    assert transformers.AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == tokenizer.encode(text)
    assert load_tokenizer(folder).encode(text + END) == tokenizer.encode(text + END)
