"""`data prepare`, `data inspect`, and training on what they speak of."""

import json

import pytest


@pytest.fixture
def prepared(desk, spikeless):
    assert spikeless("data prepare 'text:notes/*.txt' --tokenizer bpe:280 --out shards").code == 0
    return desk / "shards"


def test_prepared_shards_train_with_their_own_tokenizer(prepared, spikeless, desk):
    line = "train gpt2_nano $SMALL --data shards:shards"
    done = spikeless(line.replace("$SMALL", "$SMALL --out run --set steps=2").replace("--tokenizer bytes", ""))
    assert done.code == 2, "$SMALL asks for bytes"
    assert "use --tokenizer bpe:280" in done.err
    small = "--precision fp32 --set model.num_layers=1 --set data.sequence_length=16 --set data.batch_size=4"
    assert spikeless(f"train gpt2_nano {small} --data shards:shards --set steps=2 --out run").code == 0
    config = json.loads((desk / "run" / "run.json").read_text())["config"]
    assert config["data"]["tokenizer"] == "bpe:280"
    direct = spikeless(
        f"train gpt2_nano {small} --data 'text:notes/*.txt' --tokenizer bpe:280 --set steps=2 --out direct"
    )
    assert direct.code == 0
    losses = [
        [json.loads(line)["val_loss"] for line in (desk / name / "metrics.jsonl").read_text().splitlines()[::2]]
        for name in ("run", "direct")
    ]
    assert losses[0] == losses[1]


def test_a_resume_on_other_shards_is_refused(prepared, spikeless, desk):
    small = "--precision fp32 --set model.num_layers=1 --set data.sequence_length=16 --set data.batch_size=4"
    line = f"train gpt2_nano {small} --data shards:shards --set steps=1 --out run"
    assert spikeless(line).code == 0
    prepared.rename(desk / "old")
    (desk / "notes" / "0.txt").write_text("something else altogether " * 20)
    assert spikeless("data prepare 'text:notes/*.txt' --tokenizer bytes --out other").code == 0
    assert spikeless("data prepare 'text:notes/*.txt' --tokenizer bpe:280 --out shards").code == 0
    done = spikeless(f"{line} --resume")
    assert done.code == 2
    assert "has changed since the run began" in done.err or "another tokenizer" in done.err


def test_inspect_counts_what_is_there(prepared, spikeless):
    shown = spikeless("data inspect shards --verify --samples 2")
    assert shown.code == 0
    assert "verified" in shown.out
    found = json.loads(spikeless("data inspect shards --json -").out)[0]
    parts = found["parts"]
    assert parts["train"]["documents"] + parts["validation"]["documents"] == 10
    texts = [path.read_text() for path in sorted(prepared.parent.glob("notes/*.txt"))]
    assert parts["train"]["bytes"] + parts["validation"]["bytes"] == sum(len(text.encode()) for text in texts)
    assert all(any(text.startswith(sample) for text in texts) for sample in parts["train"]["samples"])
    counts = [each["count"] for each in found["head"]]
    assert counts == sorted(counts, reverse=True)
    assert found["unseen"] > 0
    assert parts["train"]["lengths"][0] <= parts["train"]["lengths"][-1]


def test_a_prepared_mixture_is_the_mixture(desk, spikeless):
    (desk / "more").mkdir()
    for number in range(10):
        (desk / "more" / f"{number}.txt").write_text(f"more {number} of another kind. " * 20)
    mixture = "'mix:0.75*text:notes/*.txt+0.25*text:more/*.txt'"
    assert spikeless(f"data prepare {mixture} --tokenizer bytes --out both").code == 0
    for name in ("notes", "more"):
        assert spikeless(f"data prepare 'text:{name}/*.txt' --tokenizer bytes --out {name}-shards").code == 0
    hashes = set()
    specs = (mixture, "shards:both", "mix:3*shards:notes-shards+1*shards:more-shards")
    for number, spec in enumerate(specs):
        assert spikeless(f"train gpt2_nano $SMALL --data {spec} --out run{number}").code == 0
        hashes.add(json.loads((desk / f"run{number}" / "run.json").read_text())["data_hash"])
    assert len(hashes) == 1
    shown = spikeless("data inspect both")
    assert "text:notes/*.txt" in shown.out
    assert "text:more/*.txt" in shown.out


MISTAKES = [
    ("data prepare 'txet:a' --out b", "did you mean 'text:a'"),
    ("data prepare 'text:nothing/*.txt' --out b", "no file matches"),
    ("data prepare 'text:notes/*.txt' --tokenizer bpe:9 --out b", "too small"),
    ("data prepare 'text:notes/*.txt' --out notes", "exists already"),
    ("data prepare 'text:notes/*.txt' --out b --workers 0", "--workers 0 is out of range"),
    ("data prepare 'text:notes/*.txt' --out b --validation-fraction 2", "must lie between 0 and 1"),
    ("data prepare shards:shards --out b", "prepared already"),
    ("data inspect nowhere", "is not a folder"),
    ("data inspect notes", "cannot read the tokenizer"),
    ("train gpt2_nano --data shards:nowhere --out b", "holds no token shards"),
    ("train gpt2_nano $SMALL --data 'mix:0.5*shards:shards+0.5*text:notes/*.txt' --out b", "use --tokenizer bpe:280"),
]


@pytest.mark.parametrize(("line", "message"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_message_and_nothing_is_written(line, message, prepared, desk, spikeless):
    before = sorted(desk.iterdir())
    done = spikeless(line)
    assert done.code == 2
    assert message in done.err.replace("\n", " ")
    assert not done.out or (line.startswith("train ") and ", into " in done.out and done.out.count("\n") == 1)
    assert [path for path in sorted(desk.iterdir()) if path.name != "b"] == before
    assert not (desk / "b" / "manifest.json").exists()
