"""Documents that are no text: messages through a chat template, and ids that were made before."""

import json
from pathlib import Path

import numpy as np
import pytest

from spikeless.data import parse_corpus, parse_tokenizer, prepare
from spikeless.data.documents import Messages, TokenIds
from spikeless.data.encoding import encode_document, encode_documents
from spikeless.data.inspection import inspect_shards
from spikeless.data.prepare import prepare_folder
from spikeless.errors import UserError

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(Path(__file__).parent))
    from foreign import byte_level

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ENDED = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"


def tokenizer_folder(folder, template, eos="<|endoftext|>"):
    folder.mkdir(exist_ok=True)
    byte_level(300, ("<|endoftext|>", "<|im_start|>", "<|im_end|>")).save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config | ({"chat_template": template} if template else {}))
    )
    return parse_tokenizer(f"hf:{folder}").build(lambda: iter(()), "")


def chats(folder, count=40):
    def turns(n):
        return [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"It is {n}."}]

    (folder / "chat.jsonl").write_text("".join(json.dumps({"messages": turns(n)}) + "\n" for n in range(count)))
    return "jsonl:chat.jsonl,field=messages"


def test_messages_are_what_transformers_makes_of_them(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = tokenizer_folder(tmp_path / "tok", TEMPLATE)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "tok")
    spec = chats(tmp_path, 3)
    documents = list(parse_corpus(spec).documents())
    expected = [theirs.apply_chat_template(list(each.turns), return_dict=False) for each in documents]
    assert [encode_document(each, tokenizer)[0] for each in documents] == expected
    (encoded,) = encode_documents(documents, tokenizer)
    assert encoded.ids.tolist() == [token for ids in expected for token in [*ids, tokenizer.end_of_text]]
    assert (encoded.kind, encoded.documents, encoded.inner_ends) == ("messages", 3, 0)
    assert encoded.special_tokens == 12
    assert encoded.bytes == sum(len(tokenizer.render_chat(each.turns).encode()) for each in documents)


def test_a_template_that_ends_turns_with_end_of_text_gets_no_second_one_and_is_counted(tmp_path):
    tokenizer = tokenizer_folder(tmp_path / "tok", ENDED)
    (encoded,) = encode_documents(
        [Messages(({"role": "user", "content": "a"}, {"role": "x", "content": "b"}))], tokenizer
    )
    assert np.count_nonzero(encoded.ids == tokenizer.end_of_text) == 2 and encoded.ids[-1] == tokenizer.end_of_text
    assert (encoded.documents, encoded.inner_ends) == (1, 1)
    (manifest,) = prepare_folder(chats(tmp_path), f"hf:{tmp_path}/tok", tmp_path / "out")
    assert manifest.train.kind == "messages"
    assert manifest.train.inner_ends == manifest.train.documents
    found = inspect_shards(tmp_path / "out")
    assert found.parts["train"].documents + found.parts["validation"].documents == 40


def test_token_ids_are_taken_as_they_are_and_closed_where_they_are_open(byte_tokenizer):
    end = byte_tokenizer.end_of_text
    rows = [[1, 2], [3, end], [4, end, 5]]
    (encoded,) = encode_documents([TokenIds(np.array(row)) for row in rows], byte_tokenizer)
    assert encoded.ids.tolist() == [1, 2, end, 3, end, 4, end, 5, end]
    assert (encoded.kind, encoded.documents, encoded.bytes, encoded.inner_ends) == ("token ids", 3, 0, 1)
    with pytest.raises(
        UserError, match="the data hold the token id 257, but the tokenizer bytes has 257 tokens; name the"
    ):
        list(encode_documents([TokenIds(np.array([1, 257]))], byte_tokenizer))


@pytest.mark.parametrize("field", ["messages", "input_ids"])
def test_no_tokenizer_is_learnt_from_what_is_no_text(tmp_path, field):
    chats(tmp_path)
    lines = [
        json.dumps({"input_ids": [1, 2, n], "messages": [{"role": "user", "content": f"a {n}"}]}) for n in range(40)
    ]
    (tmp_path / "chat.jsonl").write_text("\n".join(lines))
    with pytest.raises(
        UserError, match=r"learnt from them .*; name the tokenizer that they are for with --tokenizer hf:"
    ):
        prepare(f"jsonl:chat.jsonl,field={field}", "bpe:300")


def test_a_tokenizer_without_a_template_is_refused(tmp_path):
    with pytest.raises(UserError, match="the tokenizer bytes has no chat template, so messages cannot become text"):
        prepare(chats(tmp_path), "bytes")


def test_ids_are_split_counted_and_inspected(tmp_path):
    (tmp_path / "ids.jsonl").write_text("".join(json.dumps({"input_ids": [n, 1, 2]}) + "\n" for n in range(60)))
    spec = "jsonl:ids.jsonl,field=input_ids"
    source = prepare(spec, "bytes").sources[0]
    assert source.train.documents + source.validation.documents == 60
    assert source.train.tokens + source.validation.tokens == 240
    assert (source.train.kind, source.train.bytes) == ("token ids", 0)
    prepare_folder(spec, "bytes", tmp_path / "out")
    assert inspect_shards(tmp_path / "out").parts["train"].lengths == (4,) * 5
