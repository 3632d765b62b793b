"""Folders in the forms in which they are found, read by us and by transformers."""

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, normalizers, pre_tokenizers, processors

from spikeless.data import load_tokenizer
from spikeless.errors import UserError

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(Path(__file__).parent))
    from foreign import byte_level, unigram, wordpiece

transformers = pytest.importorskip("transformers")

END, BOS = "<|endoftext|>", "<s>"
TEXTS = [
    "The quick brown fox, 7 times.",
    " <s> x<s>a <pad> |<x>|[CLS] a[SEP]</s> <|im_start|>user\nhi<|im_end|>\n<unk>",
    "two  spaces\n\n the</s>end ▁ naïve 🤖",
    "<X> lower <tool>, <tool>",
]
FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}
FLAGS = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}


def with_template(tokenizer, *before, after=()):
    named = [(token, tokenizer.token_to_id(token)) for token in (*before, *after)]
    tokenizer.post_processor = processors.TemplateProcessing(single=[*before, "$A", *after], special_tokens=named)
    return tokenizer


def llama():
    return with_template(byte_level(special=(END, BOS)), BOS)


def sequence():
    """As Llama 3.1's."""
    tokenizer = llama()
    both = [processors.ByteLevel(trim_offsets=False), tokenizer.post_processor]
    tokenizer.post_processor = processors.Sequence(both)
    return tokenizer


def roberta():
    tokenizer = byte_level(special=("</s>", BOS))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 0), (BOS, 1))
    return tokenizer


def odd_flags():
    tokenizer = byte_level(special=(END,))
    tokenizer.normalizer = normalizers.Lowercase()
    stripped = AddedToken("<pad>", special=True, lstrip=True, rstrip=True)
    tokenizer.add_special_tokens([stripped, AddedToken("<x>", special=True, normalized=True)])
    tokenizer.add_tokens([AddedToken("<tool>", special=False, single_word=True)])
    return tokenizer


def prefixed():
    tokenizer = byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def t5():
    return with_template(unigram(), after=("</s>",))


def chat():
    return byte_level(special=(END, "<|im_start|>", "<|im_end|>"))


def limited():
    tokenizer = byte_level()
    tokenizer.enable_truncation(2048)
    return tokenizer


MAP, ADDED = "special_tokens_map.json", "added_tokens.json"
CASES = {
    "gpt2": (byte_level, FAST | {"bos_token": END, "eos_token": END}, {}),
    "a template": (llama, FAST | {"bos_token": BOS, "eos_token": END}, {}),
    "a sequence": (sequence, FAST | {"bos_token": BOS, "eos_token": END}, {}),
    "named only": (lambda: byte_level(special=(END, BOS)), FAST | {"bos_token": BOS, "eos_token": END}, {}),
    "flags that do not count": (
        lambda: byte_level(special=(END, BOS)),
        FAST | {"bos_token": BOS, "eos_token": END, "add_bos_token": True, "add_eos_token": True},
        {},
    ),
    "a template against its flag": (llama, FAST | {"bos_token": BOS, "eos_token": END, "add_bos_token": False}, {}),
    "roberta": (roberta, FAST | {"bos_token": BOS, "eos_token": "</s>", "cls_token": BOS}, {}),
    "bert": (wordpiece, FAST | {"eos_token": "[SEP]", "cls_token": "[CLS]", "unk_token": "[UNK]"}, {}),
    "t5": (t5, FAST | {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}, {}),
    "unigram, tokens named only": (unigram, FAST | {"bos_token": BOS, "eos_token": "</s>"}, {}),
    "map only": (llama, FAST, {MAP: {"bos_token": BOS, "eos_token": {"content": END, **FLAGS}, "pad_token": "<pad>"}}),
    "map against config": (llama, FAST | {"bos_token": END}, {MAP: {"bos_token": BOS, "eos_token": END}}),
    "map not read": (
        llama,
        FAST
        | {
            "eos_token": END,
            "added_tokens_decoder": {
                "0": {"content": END, **FLAGS, "special": True},
                "1": {"content": BOS, **FLAGS, "special": True, "lstrip": True},
                "300": {"content": "<x>", **FLAGS, "special": False},
            },
        },
        {MAP: {"pad_token": "<pad>"}},
    ),
    "objects": (
        llama,
        FAST
        | {
            "bos_token": {"__type": "AddedToken", "content": BOS, **FLAGS},
            "eos_token": {"__type": "AddedToken", "content": END, **FLAGS},
            "pad_token": {"__type": "AddedToken", "content": "<pad>", **FLAGS, "lstrip": True},
        },
        {},
    ),
    "older additional tokens": (llama, FAST | {"eos_token": END, "additional_special_tokens": ["<x>", "<pad>"]}, {}),
    "newer list": (llama, FAST | {"eos_token": END, "extra_special_tokens": ["<x>", "<pad>"]}, {}),
    "names": (
        llama,
        FAST | {"eos_token": END, "extra_special_tokens": {"tool_token": "<x>"}, "pad_token": "<pad>"},
        {},
    ),
    "added file": (byte_level, FAST | {"eos_token": END, "pad_token": "<pad>"}, {ADDED: {"<x>": 300, "<pad>": 301}}),
    "odd flags": (odd_flags, FAST | {"eos_token": END, "pad_token": "<pad>"}, {}),
    "prefix space": (prefixed, FAST | {"eos_token": END}, {}),
    "chat tokens": (chat, FAST | {"eos_token": "<|im_end|>", "pad_token": END}, {}),
    "special tokens split": (chat, FAST | {"eos_token": END, "split_special_tokens": True}, {}),
    "truncation": (limited, FAST | {"eos_token": END}, {}),
}
LEGACY = {
    "plain": {"tokenizer_class": "GPT2Tokenizer"},
    "bos": {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "pad_token": "<pad>"},
    "both": {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "add_eos_token": True, "bos_token": "Z"},
    "prefix": {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True},
}


def write(folder, tokenizer, config, files):
    folder.mkdir()
    if tokenizer is not None:
        tokenizer.save(str(folder / "tokenizer.json"))
    for name, data in {"tokenizer_config.json": config, **files}.items():
        (folder / name).write_text(json.dumps(data), encoding="utf-8")
    return folder


def check(folder, again):
    """Ids, what stands around them, and named tokens are those of transformers; saved, transformers reads the same."""
    theirs = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ours = load_tokenizer(folder)
    ours.save(again)
    saved, loaded = transformers.AutoTokenizer.from_pretrained(again, local_files_only=True), load_tokenizer(again)
    assert ours.vocab_size == max(theirs.get_vocab().values()) + 1
    before, after = (list(each) for each in ours.added_around)
    mode = "all" if ours.reading.special_tokens == "parsed" else None
    for text in TEXTS:
        wanted = theirs(text)["input_ids"]
        assert [*before, *ours.encode(text, mode), *after] == wanted, text
        assert saved(text)["input_ids"] == wanted
        assert loaded.encode(text) == ours.encode(text)
    assert list(ours.reading.beginning) == before
    assert (ours.special_token("bos"), ours.special_token("pad")) == (theirs.bos_token_id, theirs.pad_token_id)
    assert theirs.eos_token_id in (ours.end_of_text, None)
    assert (loaded.reading, loaded.is_recorded, ours.is_recorded) == (ours.reading, True, False)
    return ours


@pytest.mark.parametrize("case", CASES)
def test_a_folder_is_read_as_transformers_reads_it(tmp_path, case):
    make, config, files = CASES[case]
    check(write(tmp_path / "theirs", make(), config, files), tmp_path)


@pytest.mark.parametrize("case", LEGACY)
def test_the_older_form_of_gpt2_is_read_as_transformers_reads_it(tmp_path, case):
    folder = write(tmp_path / "theirs", None, LEGACY[case], {})
    byte_level().model.save(str(folder))
    check(folder, tmp_path)


@pytest.mark.parametrize("case", ["llama", "gpt2", "bert"])
def test_classes_that_rebuild_the_tokenizer_build_the_same(tmp_path, case):
    make, config, _ = CASES[{"llama": "a template", "gpt2": "gpt2", "bert": "bert"}[case]]
    named = {"llama": "LlamaTokenizerFast", "gpt2": "GPT2TokenizerFast", "bert": "BertTokenizerFast"}[case]
    more = {"pad_token": "[UNK]", "mask_token": "[UNK]", "sep_token": "[SEP]"} if case == "bert" else {}
    check(write(tmp_path / "theirs", make(), config | {"tokenizer_class": named} | more, {}), tmp_path)


def claim(token, number, place=None):
    """In the template of a post-processor, or in `place` of it."""

    def damage(data):
        processor = data["post_processor"]
        if place:
            processor[place] = [token, number]
        else:
            processor = processor.get("processors", [None, processor])[1]
            processor["special_tokens"][BOS] |= {"ids": [number], "tokens": [token]}

    return damage


def pad(token, number):
    def damage(data):
        fields = {"direction": "Right", "pad_to_multiple_of": None, "pad_type_id": 0}
        data["padding"] = fields | {"strategy": "BatchLongest", "pad_token": token, "pad_id": number}

    return damage


def without_a_byte(data):
    data["model"]["unk_token"] = "<unk>"
    del data["model"]["vocab"]["ð"]


def moved(data):
    data["added_tokens"][0]["id"] = 77


@pytest.mark.parametrize(
    ("make", "damage", "message"),
    [
        (
            llama,
            claim(BOS, 128000),
            r"post-processor .* takes 128000 for the id of '<s>', but .* id 1, and .* end at 299",
        ),
        (llama, claim(BOS, 0), "takes 0 for the id of '<s>', but its vocabulary gives '<s>' the id 1"),
        (llama, claim("<bos>", 1), "takes 1 for the id of '<bos>', but there is no '<bos>'"),
        (sequence, claim(BOS, 300), "takes 300 for the id of '<s>'"),
        (roberta, claim("</s>", 500, "sep"), "takes 500 for the id of '</s>'"),
        (roberta, claim("[CLS]", 3, "cls"), "there is no '.CLS.', and the ids end"),
        (llama, pad("<pad>", 9999), "the padding of its .* takes 9999"),
        (llama, pad(BOS, 5), "the padding of its .* takes 5 for the id"),
        (llama, without_a_byte, "cannot read a text: .*[Uu]nk"),
        (wordpiece, moved, "the file gives '.UNK.' the id 77"),
    ],
)
def test_ids_that_contradict_each_other_are_refused(tmp_path, make, damage, message):
    folder = write(tmp_path / "theirs", make(), FAST | {"eos_token": "[SEP]" if make is wordpiece else END}, {})
    if make is roberta:
        (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    damage(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_tokenizer(folder)


def test_special_tokens_of_the_configuration_are_checked(tmp_path):
    decoder = {"5": {"content": BOS, **FLAGS, "special": True}}
    folder = write(tmp_path / "a", llama(), FAST | {"eos_token": END, "added_tokens_decoder": decoder}, {})
    with pytest.raises(UserError, match="the file gives '<s>' the id 5, but tokenizers reads it as 1"):
        load_tokenizer(folder)
    folder = write(tmp_path / "b", llama(), FAST | {"eos_token": END, "bos_token": "<bos>"}, {})
    with pytest.raises(UserError, match=r"names the bos token '<bos>', which tokenizer.json does not have"):
        load_tokenizer(folder)


MESSAGES = [
    {"role": "system", "content": "be <b>kind</b>"},
    {"role": "user", "content": "hi\n there"},
    {"role": "assistant", "content": "hello", "thinking": "well", "tool_calls": [{"name": "f", "arguments": {"ü": 1}}]},
]
TEMPLATES = {
    "chatml": """{% for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}
{% endfor %}{% if add_generation_prompt %}never{% endif %}""",
    "rich": """{{ bos_token }}{%- set ns = namespace(n=0) -%}
{% for m in messages %}
  {% if m.role == 'system' %}{% continue %}{% endif %}
  {% set ns.n = ns.n + 1 %}
[{{ ns.n }}] {{ m.content | trim }}{{ m.reasoning_content }}
{% generation %}{{ m.tool_calls | default([]) | tojson }}{% endgeneration %}
  {% if loop.last %}{{ eos_token }}{{ dict(a=1) | tojson(indent=2) }}{% break %}{% endif %}
{% endfor %}{% if tools %}tools{% endif %}""",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_messages_become_the_text_that_transformers_makes_of_them(tmp_path, name):
    config = FAST | {"bos_token": BOS, "eos_token": END}
    folder = write(tmp_path / "theirs", llama(), config | {"chat_template": "not this one"}, {})
    (folder / "chat_template.jinja").write_text(TEMPLATES[name])
    theirs = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ours = load_tokenizer(folder)
    text = ours.render_chat(MESSAGES)
    assert text == theirs.apply_chat_template(MESSAGES, tokenize=False)
    assert ours.encode(text, "all") == theirs.apply_chat_template(MESSAGES, return_dict=False)


def test_a_template_is_not_told_what_day_it_is(tmp_path):
    dated = "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}26 Jul 2024{% endif %}"
    told = {}
    for name, template in {"asks": dated, "calls": "{{ strftime_now('%Y') }}"}.items():
        config = FAST | {"eos_token": END, "chat_template": template}
        told[name] = load_tokenizer(write(tmp_path / name, llama(), config, {})).render_chat
    assert told["asks"](MESSAGES) == "26 Jul 2024"
    with pytest.raises(
        UserError, match="'strftime_now' is undefined; data must not change from day to day: write a date"
    ):
        told["calls"](MESSAGES)


def test_templates_that_do_not_serve_are_refused(tmp_path):
    named = [{"name": "rag", "template": "r"}, {"name": "tools", "template": "t"}]
    default = [*named, {"name": "default", "template": "{{ messages | length }}"}]
    reads = {"none": None, "named": named, "default": default, "raises": "{{ raise_exception('no system') }}"}
    reads |= {"broken": "{% if %}", "escape": "{{ messages.__class__.mro() }}", "changes": "{{ messages.append(1) }}"}
    read = {}
    for name, template in reads.items():
        config = FAST | {"eos_token": END, "chat_template": template}
        read[name] = load_tokenizer(write(tmp_path / name, llama(), config, {})).render_chat
    assert read["default"](MESSAGES) == "3"
    for name, message in (
        ("none", "has no chat template, so messages cannot become text; put one beside"),
        ("named", "has the chat templates rag, tools, and none called 'default'"),
        ("raises", "cannot write these messages: no system"),
        ("broken", "cannot write these messages: Expected an expression"),
        ("escape", "unsafe"),
        ("changes", "unsafe"),
    ):
        with pytest.raises(UserError, match=message):
            read[name](MESSAGES)
