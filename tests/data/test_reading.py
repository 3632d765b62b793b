"""What a document begins with and how special tokens in it are read: decided once, recorded, obeyed."""

import json
from pathlib import Path

import pytest
from tokenizers import processors

from spikeless.data import Reading, load_tokenizer, parse_corpus, prepare, prepare_folder, split_reading
from spikeless.data.encoding import encode_documents, refuse_rowless
from spikeless.data.shards import read_manifest
from spikeless.errors import SpikelessWarning, UserError

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(Path(__file__).parent))
    from foreign import byte_level

END, START, STOP, BOS = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>"
CHAT = f"{START}user\nhi{STOP}{END}"


@pytest.fixture
def chat(tmp_path):
    """A tokenizer with the special tokens of a chat, which puts `<s>` before every text."""
    tokenizer = byte_level(special=(END, START, STOP, BOS))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 3)])
    folder = tmp_path / "chat"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END, "bos_token": BOS}))
    return folder


def lines(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return f"jsonl:{path.name}"


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("jsonl:a.jsonl", ("jsonl:a.jsonl", None)),
        ("jsonl:a.jsonl,special_tokens=text", ("jsonl:a.jsonl", "text")),
        ("jsonl:a,special_tokens= all ,field=body", ("jsonl:a,field=body", "all")),
        ("text:special_tokens=text", ("text:special_tokens=text", None)),
        ("jsonl:a,template='{b},special_tokens=all'", ("jsonl:a,template='{b},special_tokens=all'", None)),
    ],
)
def test_the_option_is_of_every_corpus(spec, found):
    assert split_reading(spec) == found


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("text:a,special_tokens=txt", "special_tokens=txt is unknown; did you mean 'text'"),
        ("text:a,special_tokens=text,special_tokens=all", "gives 'special_tokens' twice"),
    ],
)
def test_a_wrong_option_is_refused(spec, message):
    with pytest.raises(UserError, match=message):
        split_reading(spec)


def test_special_tokens_in_text_are_read_in_three_ways(chat):
    tokenizer = load_tokenizer(chat)
    assert tokenizer.reading == Reading(beginning=(3,), special_tokens="parsed")
    parsed, text, everything = (tokenizer.encode(CHAT, how) for how in ("parsed", "text", "all"))
    assert (parsed[0], parsed.count(2), 0 in parsed) == (1, 1, False)
    assert not {0, 1, 2} & set(text)
    assert (everything[0], everything[-2:]) == (1, [2, 0])
    assert [tokenizer.decode(ids) for ids in (parsed, text, everything)] == [CHAT] * 3
    assert tokenizer.encode(CHAT) == parsed
    assert tokenizer.encode_batch([CHAT, "a"], "all") == [everything, tokenizer.encode("a")]
    assert tokenizer.as_published().encode(CHAT) == everything


def test_documents_get_their_beginning_once_and_spelled_tokens_are_counted(chat, monkeypatch):
    monkeypatch.setattr("spikeless.data.encoding.PIECE_CHARACTERS", 60)
    tokenizer = load_tokenizer(chat)
    long = "some words and more " * 20 + START + " at the end"
    (batch,) = encode_documents([CHAT, long], tokenizer)
    whole = [[3, *tokenizer.encode(text), 0] for text in (CHAT, long)]
    assert batch.ids.tolist() == [*whole[0], *whole[1]]
    assert (batch.documents, batch.special_tokens) == (2, 3)
    for how, count in (("text", 0), ("all", 4)):
        (batch,) = encode_documents([CHAT, long], tokenizer.with_reading(Reading(special_tokens=how)))
        assert (batch.special_tokens, batch.ids[0] == 3) == (count, False)


def test_it_is_recorded_with_the_shards_and_comes_back_with_them(chat):
    spec = lines(Path("docs.jsonl"), [f"{CHAT} number {number}" for number in range(40)])
    (manifest,) = prepare_folder(spec, f"hf:{chat}", Path("shards"), validation_fraction=0.2)
    assert manifest.reading == Reading(beginning=(3,), special_tokens="parsed")
    assert (manifest.train.special_tokens, manifest.validation.special_tokens) == (
        2 * manifest.train.documents,
        2 * manifest.validation.documents,
    )
    data = prepare("shards:shards", f"hf:{chat}")
    assert data.tokenizer.reading == manifest.reading
    assert data.train.read(0, 2).tolist() == [3, 1]
    assert next(parse_corpus("shards:shards").documents()).startswith(CHAT)
    assert prepare(spec, f"hf:{chat}", validation_fraction=0.2).data_hash == manifest.data_hash
    other = prepare(f"{spec},special_tokens=text", f"hf:{chat}", validation_fraction=0.2)
    assert (other.tokenizer.reading.special_tokens, other.data_hash != manifest.data_hash) == ("text", True)
    with pytest.raises(UserError, match="special_tokens= comes too late for prepared shards"):
        prepare("shards:shards,special_tokens=text", f"hf:{chat}")


def test_each_source_of_a_mixture_may_be_read_in_its_own_way(chat):
    one, two = (lines(Path(f"{name}.jsonl"), [f"{CHAT} {name} {n}" for n in range(40)]) for name in ("a", "b"))
    mixed = f"mix:1*{one},special_tokens=text+1*{two}"
    manifests = prepare_folder(mixed, f"hf:{chat}", Path("mixed"), validation_fraction=0.2)
    assert [each.reading.special_tokens for each in manifests] == ["text", "parsed"]
    assert prepare("shards:mixed", f"hf:{chat}").tokenizer.reading.special_tokens == "text"
    same = f"mix:1*{one},special_tokens=all+1*{two},special_tokens=all"
    assert prepare(same, f"hf:{chat}", validation_fraction=0.2).tokenizer.reading.special_tokens == "all"


def of_0_1_0(folder):
    """The folder as version 0.1.0 wrote it: nothing says how it was read."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["reading"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if (folder / "manifest.json").exists():
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest["reading"], manifest["train"]["special_tokens"], manifest["validation"]["special_tokens"]
        (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 2}))


def test_shards_of_the_first_version_keep_the_reading_that_they_have(chat):
    spec = lines(Path("docs.jsonl"), [f"{CHAT} number {number}" for number in range(40)])
    tokenizer = load_tokenizer(chat).with_reading(Reading())
    old = prepare(spec, tokenizer, validation_fraction=0.2)
    prepare_folder(spec, f"hf:{chat}", Path("new"), validation_fraction=0.2)
    (cached,) = [path.parent for path in Path("cache/shards").rglob("manifest.json")]
    cached.rename("old")
    of_0_1_0(Path("old"))
    assert read_manifest(Path("old")).reading == Reading()
    with pytest.warns(SpikelessWarning, match="old was made by spikeless 0.1.0: as then, documents begin without"):
        data = prepare("shards:old", f"hf:{chat}")
    assert (data.data_hash, data.tokenizer.reading) == (old.data_hash, Reading())
    message = "the documents of the shards in old begin with nothing, those of the model or of other data with <s>;"
    with pytest.raises(UserError, match=message):
        prepare("mix:1*shards:new+1*shards:old", f"hf:{chat}")


def test_an_id_beyond_the_table_is_refused_with_what_helps(chat):
    tokenizer = load_tokenizer(chat)
    refuse_rowless(299, 300, tokenizer, "the text", "give another")
    with pytest.raises(
        UserError, match=r"the text needs the token '<\|im_end\|>' \(id 2\), .* ids below 2 only; with spec"
    ):
        refuse_rowless(2, 2, tokenizer, "the text", "give another")
    with pytest.raises(UserError, match=r"below 3 only; give another$"):
        refuse_rowless(3, 3, tokenizer, "the text", "give another")
