"""What happens to a checkpoint afterwards: `export`, `--init-from`, `eval`, `tev`."""

import json
import shutil

import pytest


@pytest.fixture(scope="module")
def _exported(finished, tmp_path_factory):
    from spikeless.training.export import export

    folder = tmp_path_factory.mktemp("exported") / "model"
    export(finished, folder)
    return folder


@pytest.fixture
def model(desk, _exported):
    """An exported model, in the folder where the user stands."""
    return shutil.copytree(_exported, desk / "model")


@pytest.fixture
def run(desk, finished):
    """The run that it is from."""
    return shutil.copytree(finished, desk / "run")


def test_export_says_how_exact_it_is(run, desk, spikeless):
    result = spikeless("export run --out out --dtype bf16 --max-shard-size 10KB")
    assert result.code == 0
    for part in ("largest difference of a logit", "storing bf16 instead of fp32 changes a logit", "exported: out"):
        assert part in result.out
    assert (desk / "out" / "model.safetensors.index.json").exists()
    again = spikeless("export run --out out")
    assert (again.code, again.out) == (2, "")
    assert "out" in again.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("nowhere --out x", "nowhere"),
        ("run --out x --dtype fp8", "fp8"),
        ("run --out x --max-shard-size much", "much"),
        ("notes --out x", "notes"),
    ],
)
def test_what_export_refuses(run, desk, spikeless, options, message):
    result = spikeless(f"export {options}")
    assert result.code == 2
    assert message in result.err
    assert not [path for path in desk.iterdir() if "x" in path.name.split(".")]


def test_training_goes_on_from_an_exported_model(run, model, desk, spikeless):
    size = "--set data.sequence_length=16 --set data.batch_size=4 --set steps=2 --set evaluation.tokens=64"
    rest = "--precision fp32 --device cpu --data 'text:notes/*.txt' --set metrics.loggers=()"
    result = spikeless(f"train gpt2_nano --init-from model {size} {rest} --out on")
    assert result.code == 0, result.err
    assert json.loads((desk / "on" / "status.json").read_text())["state"] == "finished"
    refused = spikeless(f"train gpt2_nano --init-from model --with mlra {size} {rest} --out no")
    assert refused.code == 2
    assert "mlra" in refused.err
    assert not (desk / "no" / "run.json").exists()


def test_another_tokenizer_than_the_models_is_refused_for_shards_and_said_otherwise(model, desk, spikeless):
    for spec, folder in (("bpe:280", "other"), ("hf:model", "same")):
        assert spikeless(f"data prepare 'text:notes/*.txt' --tokenizer {spec} --out {folder}").code == 0
    size = "--set data.sequence_length=16 --set data.batch_size=4 --set steps=1 --set evaluation.tokens=64"
    rest = f"--init-from ./model {size} --precision fp32 --device cpu --set metrics.loggers=()"
    refused = spikeless(f"train gpt2_nano {rest} --data shards:other --out a")
    assert refused.code == 2
    assert "written with the tokenizer bpe:280, not with hf:./model" in refused.err
    assert spikeless(f"train gpt2_nano {rest} --data shards:same --out b").code == 0
    said = spikeless(f"train gpt2_nano {rest} --data 'text:notes/*.txt' --tokenizer bytes --out c")
    assert "the tokenizer bytes replaces that of ./model" in said.err


def test_an_exported_folder_names_no_place_on_this_machine(run, desk, spikeless):
    assert spikeless("export run --out out").code == 0
    for path in (desk / "out").rglob("*"):
        if path.suffix in (".json", ".md"):
            assert str(desk) not in path.read_text()
            assert "spikeless" not in path.read_text() or path.suffix == ".md"


def test_eval_of_a_run_and_of_its_export_agree(run, model, desk, spikeless):
    (desk / "lambada.jsonl").write_text('{"text": "the cat sat on the mat"}\n{"text": "the dog on the rug."}\n')
    found = []
    for path in ("run", "model"):
        result = spikeless(f"eval {path} --data 'text:notes/*.txt' --lambada lambada.jsonl --json -")
        assert result.code == 0, result.err
        found.append(json.loads(result.out))
    assert found[0]["data"]["bits_per_byte"] == pytest.approx(found[1]["data"]["bits_per_byte"], rel=1e-5)
    for key in ("accuracy", "perplexity", "examples"):
        assert found[0]["lambada"][key] == pytest.approx(found[1]["lambada"][key], rel=1e-5)
    shown = spikeless("eval run --data 'text:notes/*.txt' --lambada lambada.jsonl").out
    for part in ("bits per byte", "perplexity, per token", "last-word accuracy"):
        assert part in shown


def test_eval_reads_prepared_shards(run, desk, spikeless):
    assert spikeless("data prepare 'text:notes/*.txt' --tokenizer bytes --out shards").code == 0
    options = "--json - --part all"
    plain, prepared = (
        spikeless(f"eval run --data {data} {options}") for data in ("'text:notes/*.txt'", "shards:shards")
    )
    first, second = json.loads(plain.out)["data"], json.loads(prepared.out)["data"]
    assert (first["documents"], first["bytes"]) == (second["documents"], second["bytes"])
    assert first["bits_per_byte"] == pytest.approx(second["bits_per_byte"], rel=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("run", "--data SPEC, --lambada FILE"),
        ("run --data 'text:none/*'", "none/"),
        ("run --data 'mix:0.5*text:notes/1.txt+0.5*text:notes/2.txt'", "one source at a time"),
        ("run --lambada none.jsonl", "none.jsonl"),
        ("run --data 'text:notes/*.txt' --part test", "--part 'test'"),
        ("run --data 'text:notes/*.txt' --sequence-length 99", "99"),
        ("nowhere --data 'text:notes/*.txt'", "nowhere is no folder"),
    ],
)
def test_what_eval_refuses(run, spikeless, options, message):
    result = spikeless(f"eval {options}")
    assert (result.code, result.out) == (2, "")
    assert message in result.err


def test_tev_compares_and_draws(run, model, desk, spikeless):
    result = spikeless("tev model run --plot tev.html --json tev.json")
    assert result.code == 0
    assert "model" in result.out.splitlines()[4]
    assert "plot: tev.html" in result.out
    readings = json.loads((desk / "tev.json").read_text())
    assert readings[0]["mean"] == pytest.approx(readings[-1]["mean"], rel=1e-6)
    printed = spikeless("tev model --json - --plot other.html")
    assert json.loads(printed.out) == readings[:1]
    assert (desk / "other.html").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("nowhere/at/all", "nowhere/at/all"),
        ("model.bin", "pickle"),
        ("model --tensor wte", "wte"),
        ("model --plot notes", "notes"),
    ],
)
def test_what_tev_refuses(model, desk, spikeless, options, message):
    (desk / "model.bin").write_bytes(b"\x80\x04.")
    result = spikeless(f"tev {options}")
    assert result.code == 2
    assert message in result.err
