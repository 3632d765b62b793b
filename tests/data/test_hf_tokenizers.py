"""Tokenizers that others made, written here in the forms in which they are found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from tokenizers import AddedToken, processors

from spikeless.data import load_tokenizer, parse_tokenizer
from spikeless.errors import SpikelessWarning, UserError

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(Path(__file__).parent))
    from foreign import byte_level, unigram, wordpiece

TEXTS = ["The quick brown fox, 7 times.", " lazy  dog\n", "the end</s> of<|endoftext|> it</s></s>", "", "naïve 🤖 café"]


def build(spec):
    return parse_tokenizer(spec).build(lambda: iter(()), "")


def write(folder, tokenizer, **config):
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return f"hf:{folder}"


KINDS = {
    "byte-level": (byte_level, "<|endoftext|>"),
    "unigram": (unigram, "</s>"),
    "wordpiece": (wordpiece, "[SEP]"),
}


@pytest.fixture(params=KINDS)
def kind(request):
    make, end = KINDS[request.param]
    return make(), end


@pytest.mark.filterwarnings("ignore:the tokenizer .* does not keep every text")
def test_a_foreign_tokenizer_gives_its_own_ids_and_no_text_is_an_end(tmp_path, kind):
    plain, end = kind
    tokenizer = build(write(tmp_path / "theirs", plain, eos_token={"content": end, "__type": "AddedToken"}))
    assert tokenizer.vocab_size == max(plain.get_vocab().values()) + 1
    assert tokenizer.end_of_text == plain.token_to_id(end)
    assert tokenizer.encode(TEXTS[0]) == plain.encode(TEXTS[0], add_special_tokens=False).ids
    for text in [*TEXTS, f"{end}a {end}{end}", end]:
        ids = tokenizer.encode(text)
        assert tokenizer.end_of_text not in ids
        if end == "<|endoftext|>":
            assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([*TEXTS, end]) == [tokenizer.encode(text) for text in [*TEXTS, end]]
    assert tokenizer.decode([tokenizer.end_of_text]) == end


def test_an_added_token_that_is_not_special_is_no_end_either(tmp_path):
    plain = byte_level(special=())
    plain.add_tokens([AddedToken("<end>", special=False, normalized=False)])
    tokenizer = build(write(tmp_path / "theirs", plain, eos_token="<end>"))
    text = "one<end>two <end><end> three" * 2000
    ids = tokenizer.encode(text)
    assert tokenizer.end_of_text not in ids
    assert tokenizer.decode(ids) == text


def test_a_definition_may_have_no_added_tokens(tmp_path):
    spec = write(tmp_path / "theirs", byte_level())
    path = tmp_path / "theirs" / "tokenizer.json"
    data = json.loads(path.read_text())
    del data["added_tokens"]
    path.write_text(json.dumps(data))
    tokenizer = build(spec)
    assert tokenizer.decode(tokenizer.encode(TEXTS[0], "parsed")) == TEXTS[0]


def test_an_end_that_is_ordinary_text_is_refused(tmp_path):
    plain = byte_level()
    plain.add_tokens([AddedToken("a", special=False)])
    with pytest.raises(UserError, match=r"end-of-text token 'a' of hf:.* is text; set another one"):
        build(write(tmp_path / "theirs", plain, eos_token="a"))


def test_truncation_padding_and_tokens_around_a_text_are_off(tmp_path):
    plain = byte_level(special=("<|endoftext|>", "<s>"))
    expected = plain.encode("fox " * 100).ids
    plain.enable_truncation(8)
    plain.enable_padding(length=300)
    plain.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = build(write(tmp_path / "theirs", plain))
    assert tokenizer.encode("fox " * 100) == expected
    assert tokenizer.encode_batch(["fox " * 100, "fox"]) == [expected, tokenizer.encode("fox")]


def test_saving_keeps_what_the_folder_said(tmp_path):
    transformers = pytest.importorskip("transformers")
    plain = byte_level(special=("<|endoftext|>", "<s>", "<pad>", "<unk>"))
    spec = write(
        tmp_path / "theirs",
        plain,
        tokenizer_class="GPT2Tokenizer",
        auto_map={"AutoTokenizer": ["evil.Code", None]},
        bos_token="<s>",
        eos_token={"content": "<|endoftext|>", "__type": "AddedToken", "special": True},
        model_max_length=77,
    )
    special = {
        "pad_token": "<pad>",
        "unk_token": {"content": "<unk>"},
        "bos_token": "<|endoftext|>",
        "additional_special_tokens": [{"content": "<s>"}],
    }
    (tmp_path / "theirs" / "special_tokens_map.json").write_text(json.dumps(special))
    (tmp_path / "theirs" / "chat_template.jinja").write_text("{{ messages[0]['content'] }}!")
    tokenizer = build(spec)
    tokenizer.save(tmp_path / "run")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "run", local_files_only=True)
    assert (theirs.bos_token, theirs.eos_token, theirs.pad_token, theirs.unk_token, theirs.model_max_length) == (
        ("<|endoftext|>", "<|endoftext|>", "<pad>", "<unk>", 77)  # transformers lets the older file win
    )
    assert theirs.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi!"
    assert theirs(TEXTS[0])["input_ids"] == tokenizer.encode(TEXTS[0])
    assert "evil" not in (tmp_path / "run" / "tokenizer_config.json").read_text()
    loaded = load_tokenizer(tmp_path / "run")
    assert (loaded.spec, loaded.fingerprint(), loaded.end_of_text) == (spec, tokenizer.fingerprint(), 0)
    loaded.save(tmp_path / "again")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    assert build(f"hf:{tmp_path}/run").encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)


def test_the_older_form_of_gpt2(tmp_path):
    plain = byte_level()
    folder = tmp_path / "old"
    folder.mkdir()
    plain.model.save(str(folder))
    tokenizer = build(f"hf:{folder}")
    assert tokenizer.encode_batch(TEXTS) == [plain_ids(plain, text) for text in TEXTS]
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (300, 0)
    (folder / "added_tokens.json").write_text('{"<b>": 301, "<a>": 300}')
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<b>"}')
    tokenizer = build(f"hf:{folder}")
    assert (tokenizer.vocab_size, tokenizer.end_of_text, tokenizer.token_to_id("<a>")) == (302, 301, 300)
    (folder / "added_tokens.json").write_text('{"<b>": 500}')
    with pytest.raises(UserError, match="the file gives '<b>' the id 500, but tokenizers reads it as 300"):
        build(f"hf:{folder}")


def plain_ids(plain, text):
    plain.encode_special_tokens = True
    return plain.encode(text, add_special_tokens=False).ids


def test_a_gap_in_the_ids_counts(tmp_path):
    definition = json.loads(byte_level().to_str())
    definition["model"]["vocab"]["far"] = 999
    tokenizer = build(write(tmp_path / "theirs", tokenizers.Tokenizer.from_str(json.dumps(definition))))
    assert tokenizer.vocab_size == 1000


@pytest.mark.parametrize("end", ["<|endoftext|>", "<|end_of_text|>", "</s>"])
def test_a_usual_end_is_found_where_none_is_named(tmp_path, end):
    tokenizer = build(write(tmp_path / "theirs", byte_level(special=("<pad>", end))))
    assert tokenizer.end_of_text == 1


@pytest.mark.filterwarnings("default")
def test_it_is_said_when_text_is_not_kept(tmp_path):
    with pytest.warns(SpikelessWarning, match="does not keep every text: .*naïve.* comes back as 'two spaces"):
        build(write(tmp_path / "theirs", wordpiece(), eos_token="[SEP]"))


def degenerate(definition):
    definition["model"] |= {"vocab": {"<|endoftext|>": 0}, "merges": []}


def moved(definition):
    definition["added_tokens"].append(definition["added_tokens"][0] | {"id": 777, "content": "<far>"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (degenerate, r"is degenerate \(1 ids\): of 'The quick.* it makes ''; check how"),
        (moved, "the file gives '<far>' the id 777, but tokenizers reads it as 300; added tokens must"),
        (lambda definition: definition.pop("model"), "is not a tokenizer definition that can be read: 'model'"),
        (lambda definition: definition["model"].update(type="Odd"), "not a tokenizer definition"),
        (lambda definition: definition["added_tokens"].clear(), None),
    ],
)
def test_bad_definitions(tmp_path, damage, message):
    spec = write(tmp_path / "theirs", byte_level())
    path = tmp_path / "theirs" / "tokenizer.json"
    definition = json.loads(path.read_text(encoding="utf-8"))
    damage(definition)
    path.write_text(json.dumps(definition), encoding="utf-8")
    if message is None:
        assert build(spec).end_of_text == 0
        return
    with pytest.raises(UserError, match=message):
        build(spec)


def test_what_is_not_there_is_said(tmp_path):
    spec = write(tmp_path / "theirs", byte_level(special=("[PAD]",)), pad_token="[PAD]")
    message = r"no end-of-text token: .* none of <\|endoftext\|>, .*found: \[PAD\]\); write one as \"eos_token\""
    with pytest.raises(UserError, match=message):
        build(spec)
    (tmp_path / "theirs" / "tokenizer_config.json").write_text('{"eos_token": "<gone>"}')
    with pytest.raises(UserError, match="has no end-of-text token '<gone>'"):
        build(spec)
    (tmp_path / "theirs" / "tokenizer_config.json").write_text("[]")
    with pytest.raises(UserError, match=r"tokenizer_config.json is damaged"):
        build(spec)
    (tmp_path / "theirs" / "tokenizer.json").write_text("{")
    (tmp_path / "theirs" / "tokenizer_config.json").unlink()
    with pytest.raises(UserError, match="not a tokenizer definition"):
        build(spec)
    (tmp_path / "theirs" / "tokenizer.json").rename(tmp_path / "theirs" / "tokenizer.model")
    with pytest.raises(UserError, match=r"only a slow tokenizer's tokenizer.model; write one with AutoTokenizer"):
        build(spec)
    (tmp_path / "theirs" / "tokenizer.model").rename(tmp_path / "file")
    with pytest.raises(UserError, match="holds no tokenizer"):
        build(spec)
    with pytest.raises(UserError, match="file is a file; name the folder"):
        build(f"hf:{tmp_path}/file")
    with pytest.raises(UserError, match="there is no such folder"):
        build("hf:./nowhere")


def test_a_hub_name_fails_at_once_or_comes_from_the_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(UserError, match="no folder lab/tok, it is not in the Hugging Face cache, and the hub cannot"):
        build("hf:lab/tok")
    repository = tmp_path / "hub" / "models--lab--tok"
    (repository / "snapshots").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    write(repository / "snapshots" / "abc123", byte_level())
    assert build("hf:lab/tok").vocab_size == 300


def test_a_fresh_process_says_what_is_wrong_and_the_libraries_say_nothing(tmp_path):
    """Nothing is imported yet, and nothing told it to be offline: only the hub's address leads nowhere."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "train.jsonl").write_text('{"text": ')
    lines = [
        "from spikeless.data import parse_corpus, parse_tokenizer",
        "from spikeless.errors import UserError",
        "reads = [lambda: parse_tokenizer('hf:lab/tok').vocab_size, parse_corpus('hf:lab/notes').fingerprint]",
        "for read in [*reads, lambda: list(parse_corpus('hf:./bad').documents())]:",
        "    try:",
        "        read()",
        "    except UserError as error:",
        "        print(error)",
    ]
    offline = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    environment = {name: value for name, value in os.environ.items() if name not in offline}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    no_tokenizer, no_corpus, bad = done.stdout.splitlines()
    assert "hub cannot be reached from here" in no_tokenizer
    assert "hub cannot be reached from here" in no_corpus
    assert "train.jsonl, line 1 is not JSON" in bad
    assert done.stderr == ""  # no word of retries
