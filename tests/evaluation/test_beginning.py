"""A tokenizer with a bos token of its own: training, evaluation, generation and the export begin documents alike."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import normalizers, processors

from spikeless.cli.generate import generate
from spikeless.config import replace_at
from spikeless.data import Reading
from spikeless.data.tokenizers._fast import FastTokenizer
from spikeless.errors import SpikelessWarning, UserError
from spikeless.evaluation import LambadaExample, evaluate_lambada, evaluate_perplexity, load_subject
from spikeless.recipes import compose
from spikeless.training.export import export
from spikeless.training.loop import train

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(Path(__file__).parents[1] / "data"))
    from foreign import byte_level

transformers = pytest.importorskip("transformers")
CPU = torch.device("cpu")
END, BOS = "<|endoftext|>", "<s>"
TEXTS = [f"{who} {does} {number}" for number in range(30) for who, does in (("the cat", "sat"), ("a dog", "ran"))]


def write(folder, **config):
    tokenizer = byte_level(special=(END, BOS))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 1)])
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS, "eos_token": END} | config
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beginning")
    write(folder / "tokenizer")
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return folder


@pytest.fixture(scope="module")
def described(root, tiny_run):
    changes = {"data.spec": f"jsonl:{root}/texts.jsonl", "data.tokenizer": f"hf:{root}/tokenizer", "steps": 100}
    changes |= {"model.vocab_size": None, "evaluation.tokens": 64, "precision": "fp32", "data.batch_size": 8}
    changes |= {"optim.lr": 1e-2, "metrics.every": 0}
    return replace_at(tiny_run("llama"), changes)


@pytest.fixture(scope="module")
def run(root, described):
    train(described, root / "run", report=False)
    export(root / "run", root / "out")
    return root / "run"


def bits_per_byte(folder):
    return evaluate_perplexity(load_subject(folder, device=CPU), TEXTS).bits_per_byte


def of_transformers(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    nats = 0.0
    with torch.no_grad():
        for text in TEXTS:
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            nats += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
    return nats / math.log(2) / sum(map(len, TEXTS)), model.config, tokenizer


def test_training_evaluation_and_the_export_begin_with_one_token(root, run):
    assert json.loads((run / "run.json").read_text())["reading"] == {"beginning": [1], "special_tokens": "parsed"}
    trained, exported = load_subject(run, device=CPU), load_subject(root / "out", device=CPU)
    assert trained.prefix == exported.prefix == (1,)
    found, config, theirs = of_transformers(root / "out")
    assert bits_per_byte(run) == pytest.approx(bits_per_byte(root / "out"), rel=1e-5) == pytest.approx(found, rel=1e-5)
    assert (config.bos_token_id, theirs.bos_token_id, theirs("a")["input_ids"][0]) == (1, 1, 1)
    without = replace(trained, tokenizer=trained.tokenizer.with_reading(Reading()))
    assert found < evaluate_perplexity(without, TEXTS).bits_per_byte - 0.1, "documents were trained to begin with it"
    words = [LambadaExample(context="the cat", target=" sat"), LambadaExample(context="", target=" dog")]
    accuracy = [evaluate_lambada(each, words).perplexity for each in (trained, exported)]
    assert accuracy[0] == pytest.approx(accuracy[1], rel=1e-4)


def test_generation_begins_with_it_too(root, run, capsys):
    model, tokenizer = load_subject(run, device=CPU).scorer.model, load_subject(run, device=CPU).tokenizer
    for prompt in ("the cat", ""):
        ids = [1, *tokenizer.encode(prompt)]
        for _ in range(3):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        for folder in (run, root / "out"):
            generate(folder, prompt=prompt, max_tokens=3, temperature=0)
            assert capsys.readouterr().out == tokenizer.decode(ids[1:]) + "\n"


def test_a_run_that_begins_from_an_export_takes_its_reading_over(root, run, described, tmp_path):
    out = tmp_path / "text"
    train(replace_at(described, {"data.spec": f"{described.data.spec},special_tokens=text", "steps": 1}), out)
    export(out, tmp_path / "from")
    again = replace_at(compose("llama_nano", init_from=str(tmp_path / "from")), {"data.spec": described.data.spec})
    again = replace_at(again, {"steps": 1, "metrics.every": 0, "evaluation.tokens": 64})
    train(again, tmp_path / "onward", report=False)
    reading = {"beginning": [1], "special_tokens": "text"}
    assert json.loads((tmp_path / "onward" / "run.json").read_text())["reading"] == reading
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "from")
    assert theirs("<s>a")["input_ids"] == [1, *load_subject(out, device=CPU).encode("<s>a")]


def test_a_run_of_the_first_version_keeps_its_reading(root, run, tmp_path):
    """It trained without the token, whatever the tokenizer says; so evaluation and export leave it out."""
    old = tmp_path / "run"
    old.mkdir()
    for path in ("run.json", "environment.json", "status.json", "metrics.jsonl", "tokenizer.json", "checkpoints"):
        (old / path).symlink_to(run / path)
    config = json.loads((run / "tokenizer_config.json").read_text())
    del config["reading"]
    (old / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.warns(SpikelessWarning, match=r"was made by spikeless 0\.1\.0: as then, documents begin without"):
        subject = load_subject(old, device=CPU)
    assert (subject.prefix, 1 in subject.encode("<s>a")) == ((0,), False)
    with pytest.warns(SpikelessWarning, match="as then"):
        export(old, tmp_path / "out")
    _, model, theirs = of_transformers(tmp_path / "out")
    assert (model.bos_token_id, theirs.bos_token_id) == (0, 0)
    assert theirs("<s>a")["input_ids"] == subject.encode("<s>a")
    assert load_subject(tmp_path / "out", device=CPU).prefix == (0,)


def test_a_foreign_folder_gives_the_ids_of_transformers(root, run, tmp_path):
    folder = tmp_path / "theirs"
    transformers.AutoModelForCausalLM.from_pretrained(root / "out").save_pretrained(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(write(folder))
    subject = load_subject(folder, device=CPU)
    for text in TEXTS[0], f"a{END}b{BOS}":
        assert [*subject.tokenizer.reading.beginning, *subject.encode(text)] == theirs(text)["input_ids"]
    assert bits_per_byte(folder) == pytest.approx(bits_per_byte(run), rel=1e-5)


def test_a_token_beyond_the_table_matters_only_to_text_that_spells_it(root, run, tmp_path, described):
    folder = tmp_path / "padded"
    transformers.AutoModelForCausalLM.from_pretrained(root / "out").save_pretrained(folder)
    write(folder, pad_token="<pad>")
    subject = load_subject(folder, device=CPU)
    assert subject.tokenizer.vocab_size == subject.scorer.vocab_size + 1
    assert bits_per_byte(folder) == pytest.approx(bits_per_byte(run), rel=1e-5)
    with pytest.raises(UserError, match=r"needs the token '<pad>' \(id 300\), .* with special_tokens=text in the data"):
        subject.encode("a <pad>")
    start = replace_at(compose("llama_nano", init_from=str(folder)), {"data.spec": described.data.spec, "steps": 1})
    start = replace_at(start, {"metrics.every": 0, "evaluation.tokens": 64})
    train(start, tmp_path / "fine", report=False)
    export(tmp_path / "fine", tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs.pad_token_id == json.loads((tmp_path / "out" / "config.json").read_text())["pad_token_id"] == 0
    (tmp_path / "pads.jsonl").write_text("".join(json.dumps({"text": f"<pad> {text}"}) + "\n" for text in TEXTS))
    with pytest.raises(UserError, match=r"pads.jsonl needs the token '<pad>' \(id 300\)"):
        train(replace_at(start, {"data.spec": f"jsonl:{tmp_path}/pads.jsonl"}), tmp_path / "refused")
    as_text = f"jsonl:{tmp_path}/pads.jsonl,special_tokens=text"
    train(replace_at(start, {"data.spec": as_text}), tmp_path / "text", report=False)


def test_a_lossy_tokenizer_is_told_of_a_run_folder_too(run, tmp_path):
    old = tmp_path / "run"
    old.mkdir()
    for path in ("run.json", "checkpoints"):
        (old / path).symlink_to(run / path)
    tokenizer = byte_level(special=(END, BOS))
    tokenizer.normalizer = normalizers.Lowercase()
    FastTokenizer(tokenizer.to_str(), "theirs", END).save(old)
    with pytest.warns(SpikelessWarning, match="the tokenizer theirs does not keep every text"):
        load_subject(old, device=CPU)
