import json

import pytest

from spikeless.data import load_tokenizer, parse_tokenizer
from spikeless.data.tokenizers import bpe
from spikeless.errors import SpikelessWarning, UserError

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "  leading, trailing and\tother   white space \n\n\r\n ",
    "naïve café – Ærøskøbing “quoted” 你好，世界 🤖👩‍👩‍👧 \u0301\u200d ́ \U0010ffff",
    "<|endoftext|> is text like any other, <|endoftext|>",
    "".join(map(chr, range(1, 700))),
    "\0",
    "",
]
LESSON = [f"{TEXTS[0]} {number} times seven is {7 * number}, said the {number}th fox." for number in range(300)]


def build(spec, documents=LESSON, identity="lesson"):
    return parse_tokenizer(spec).build(lambda: iter(documents), identity)


@pytest.fixture(params=["bytes", "bpe:300"])
def tokenizer(request):
    return build(request.param)


def test_decoding_gives_back_the_text(tokenizer):
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 <= each < tokenizer.vocab_size for each in ids)
        assert tokenizer.end_of_text not in ids
    assert tokenizer.encode_batch(TEXTS) == [tokenizer.encode(text) for text in TEXTS]


def test_saving_and_loading_changes_nothing(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "run")
    for path in (tmp_path / "run", tmp_path / "run" / "tokenizer.json"):
        loaded = load_tokenizer(path)
        assert loaded.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
        assert loaded.fingerprint() == tokenizer.fingerprint()
        assert (loaded.spec, loaded.vocab_size, loaded.end_of_text) == (
            tokenizer.spec,
            tokenizer.vocab_size,
            tokenizer.end_of_text,
        )
    loaded.save(tmp_path / "again")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_hugging_face_reads_what_was_saved(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path / "run")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "run", local_files_only=True)
    assert theirs.eos_token_id == tokenizer.end_of_text
    assert theirs(TEXTS[2])["input_ids"] == tokenizer.encode(TEXTS[2])
    assert theirs.decode(tokenizer.encode(TEXTS[1])) == TEXTS[1]


def test_bytes_are_their_own_ids():
    tokenizer = build("bytes")
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (257, 256)
    for text in TEXTS:
        assert tokenizer.encode(text) == list(text.encode())
    assert tokenizer.decode([0xFF, 0x41]) == "�A"


def test_bpe_learns_the_same_from_the_same_text(monkeypatch, tmp_path):
    first = build("bpe:300")
    monkeypatch.setenv("SPIKELESS_CACHE", str(tmp_path / "other"))
    assert build("bpe:300").fingerprint() == first.fingerprint()
    assert first.vocab_size == 300
    assert len(first.encode(LESSON[0])) < len(LESSON[0].encode()) / 2


def test_bpe_learns_from_a_sample_of_a_large_corpus(monkeypatch):
    monkeypatch.setattr(bpe, "LEARNT_CHARACTERS", 20_000)
    monkeypatch.setattr(bpe, "PIECE_CHARACTERS", 50)
    documents = [f"document {number} " + "x" * (number % 90) for number in range(3000)]
    sample = bpe._sample(iter(documents))
    assert 10_000 < sum(len(piece) + bpe.OVERHEAD for piece in sample) <= 20_000
    assert 50 < len(bpe._sample(["the same"] * 1000)) < 130
    assert sample == bpe._sample(iter(documents))
    numbers = [int(each.split()[1]) for each in sample if each.startswith("document")]
    assert numbers == sorted(numbers)
    assert numbers[0] < 200 < 2800 < numbers[-1]
    assert bpe._sample(iter(documents[:20])) == [
        each[start : start + 50] for each in documents[:20] for start in range(0, len(each), 50)
    ]


def test_bpe_is_cached_by_size_and_content():
    first = build("bpe:300")
    assert build("bpe:300", documents=["never read"]).fingerprint() == first.fingerprint()
    assert build("bpe:301").vocab_size == 301
    assert build("bpe:300", [text.upper() for text in LESSON], "upper").fingerprint() != first.fingerprint()


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("tokenizer.json", lambda text: text[:-9]),
        ("tokenizer.json", lambda text: text + " "),
        ("tokenizer_config.json", lambda text: text[:-9]),
        ("tokenizer_config.json", lambda text: text.replace("bpe:300", "bpe:301")),
        ("tokenizer_config.json", None),
    ],
)
def test_a_damaged_cache_is_made_anew(cache, file, damage):
    first = build("bpe:300")
    (path,) = cache.glob(f"tokenizers/*/content/{file}")
    before = path.read_text(encoding="utf-8")
    if damage:
        path.write_text(damage(before), encoding="utf-8")
    else:
        path.unlink()
    with pytest.warns(SpikelessWarning, match="damaged cache"):
        assert build("bpe:300").fingerprint() == first.fingerprint()
    assert path.read_text(encoding="utf-8") == before


def test_too_little_text_for_the_vocabulary_is_refused_with_the_size_that_fits(cache):
    with pytest.raises(UserError, match=r"repeats itself too little for more than (\d+) tokens; write bpe:\1 or"):
        build("bpe:2048", ["banana bandana"] * 3)
    with pytest.raises(UserError, match="more than 257 tokens; write `bytes` or give more text"):
        build("bpe:300", ["a"])
    assert not list(cache.rglob("content*"))


def test_damaged_and_missing_files_are_refused(tmp_path, tokenizer):
    with pytest.raises(UserError, match=r"cannot read the tokenizer .*nowhere"):
        load_tokenizer(tmp_path / "nowhere")
    tokenizer.save(tmp_path)
    path, config = tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"
    definition = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(definition), encoding="utf-8")
    with pytest.raises(UserError, match="is damaged: it is not the tokenizer that"):
        load_tokenizer(path)
    config.write_text("[]")
    with pytest.raises(UserError, match=r"tokenizer_config.json is damaged"):
        load_tokenizer(path)
    config.unlink()
    assert load_tokenizer(path).encode("hello") == tokenizer.encode("hello")
    definition["added_tokens"] = []
    definition["model"]["vocab"].pop("<|endoftext|>", None)
    path.write_text(json.dumps(definition), encoding="utf-8")
    with pytest.raises(UserError, match=r"no end-of-text token"):
        load_tokenizer(path)
    path.write_bytes(b"\x80\x04N.")  # a pickle
    with pytest.raises(UserError, match="cannot read the tokenizer"):
        load_tokenizer(path)
