"""`audit`, as a user runs it: every kind of target and output, and what it refuses."""

import json
import math
import re
import shutil
import subprocess
import sys
import time
import warnings
from xml.etree import ElementTree as ET

import pytest
import torch

from spikeless.training.export import export

SMALL = "--set model.num_layers=2 --set model.width=32 --set model.num_heads=2"
FEW = "--batch 2 --seq 32"

LAB = """
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        q, k, v = (each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in self.qkv(self.ln_1(x)).chunk(3, -1))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.ln_2(x))))


class GPT(nn.Module):
    def __init__(self, vocab=60, width=32, layers=2, context=40):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab, width), nn.Embedding(context, width)
        self.layers = nn.ModuleList(Block(width, 2) for _ in range(layers))
        self.ln_f, self.head = nn.LayerNorm(width), nn.Linear(width, vocab, bias=False)
        for name, each in self.named_parameters():
            if each.dim() == 2:
                scaled = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(each, std=0.02 / (2 * layers) ** 0.5 if scaled else 0.02)

    def forward(self, ids):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for layer in self.layers:
            x = layer(x)
        return self.head(self.ln_f(x))


class Sees(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(50, 16), nn.Linear(16, 50)
        self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)

    def forward(self, ids):
        return self.head(self.layers(self.embedding(ids)))


class Needy(GPT):
    def forward(self, ids, memory, mask):
        return super().forward(ids)


def make():
    return GPT()


def other():
    return GPT(width=64)


def broken():
    model = GPT()
    with torch.no_grad():
        model.layers[1].up.weight[3, 4] = float("nan")
    return model


def perceptron():
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))


def sees():
    return Sees()


def needy():
    return Needy()


def sized(width):
    return GPT(width=width)


def fails():
    raise RuntimeError("the cupboard is bare")


def nothing():
    return None


number = 3
"""


def strict(text: str):
    """JSON, and no NaN in it."""
    return json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))


def folder_of(path, model, *, weights=True):
    model.save_pretrained(path)
    if not weights:
        (path / "model.safetensors").unlink()


@pytest.fixture(scope="module")
def _models(finished, tmp_path_factory):
    """Folders of models: our run and its export, two of transformers, and broken ones."""
    from transformers import BertConfig, OPTConfig, OPTForCausalLM, Qwen2Config, Qwen2ForCausalLM

    root = tmp_path_factory.mktemp("models")
    shutil.copytree(finished, root / "run")
    export(root / "run", root / "exported")
    sizes = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 64}
    torch.manual_seed(0)
    opt = OPTForCausalLM(OPTConfig(**sizes, ffn_dim=64, num_attention_heads=2, word_embed_proj_dim=32))
    folder_of(root / "opt", opt)
    folder_of(root / "opt_config", opt, weights=False)
    qwen = Qwen2ForCausalLM(Qwen2Config(**sizes, intermediate_size=64, num_attention_heads=2, num_key_value_heads=1))
    folder_of(root / "qwen", qwen)
    with torch.no_grad():
        qwen.model.layers[1].mlp.up_proj.weight[3, 4] = math.nan
    folder_of(root / "nan", qwen)
    BertConfig(**sizes, intermediate_size=64, num_attention_heads=2).save_pretrained(root / "bert")
    for name in ("pickle", "bare", "damaged", "strange", "untold"):
        (root / name).mkdir()
    shutil.copy(root / "opt" / "config.json", root / "pickle")
    (root / "pickle" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (root / "model.pt").write_bytes(b"\x80\x04.")
    shutil.copy(root / "opt" / "model.safetensors", root / "bare")
    (root / "damaged" / "config.json").write_text('{"model_type": "opt",')
    (root / "strange" / "config.json").write_text('{"model_type": "optt"}')
    (root / "untold" / "config.json").write_text("{}")
    return root


@pytest.fixture
def models(desk, _models):
    """The folders and `audit_lab.py` where the user stands, and an audit of an audit_lab model in `known.json`."""
    shutil.copytree(_models, desk, dirs_exist_ok=True)
    (desk / "audit_lab.py").write_text(LAB)
    yield desk
    sys.modules.pop("audit_lab", None)


# --- targets ---

TARGETS = {
    f"gpt2_nano {SMALL}": "initial",
    f"llama_nano {SMALL}": "initial",
    f"gpt2_nano --with 'mlra(rank=4)+scaled_embed' {SMALL}": "initial",
    "run --seq 16": "trained",
    "run/checkpoints/step-00000003 --seq 16": "trained",
    "exported --seq 16 --initial": "initial",
    "opt": "initial",
    "opt/config.json": "initial",
    "opt_config": "initial",
    "qwen": "initial",
    "audit_lab:make": "initial",
}


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_is_measured(target, models, spikeless):
    done = spikeless(f"audit {target} {'' if '--seq' in target else '--seq 32'} --batch 2 --json - --fail-on never")
    assert done.code == 0, done.err
    assert done.err == ""
    found = strict(done.out)
    assert found["target"] == target.split()[0]
    assert found["model"]["state"] == TARGETS[target]
    assert found["model"]["num_layers"] == (1 if "--seq" in target else 2)
    assert found["batch"]["sequences"] == 2
    assert found["logits"]["loss"] == pytest.approx(found["logits"]["ln_vocab"], abs=1)
    assert found["learning_rate"]["critical"] > 0
    assert found["score"] == pytest.approx(math.log10(found["learning_rate"]["feature_change"]))
    assert found["tev"]["mean"] > 0
    assert all(layer["gradient_norm"] > 0 for layer in found["layers"])
    assert all(each["measured"] > 0 for layer in found["layers"] for each in layer["sub_layers"])
    assert found["theory"]["first_layer_ffn_gain"] > 0


@pytest.mark.parametrize("target", [*(each.split(" --seq")[0] for each in TARGETS), "nan", "audit_lab:broken"])
def test_theory_needs_no_activations(target, models, spikeless):
    done = spikeless(f"audit {target} --theory-only --json -")
    assert done.code == 0, done.err
    assert done.err == ""
    found = strict(done.out)
    assert found["theory"]["first_layer_ffn_gain"] > 0
    assert (found["batch"], found["layers"], found["logits"], found["score"]) == (None, [], None, None)


def test_theory_judges_the_weights_that_a_recipe_would_draw(spikeless, desk):
    done = spikeless("audit gpt2_nano --theory-only --json -")
    checks = {each["check"] for each in strict(done.out)["findings"]}
    assert {"initial_weights", "depth_scaling", "layers_alike", "norm_gains", "biases"} <= checks
    done = spikeless("audit gpt2_nano --set 'init.target_std.ffn_down=0.5' --theory-only --json -")
    assert {each["check"] for each in strict(done.out)["findings"] if each["severity"] != "pass"} >= {"initial_weights"}


def test_theory_reads_no_weights(models, spikeless):
    for folder in ("opt", "exported"):
        (models / folder / "model.safetensors").write_bytes(b"")
    for path in (models / "run" / "checkpoints").rglob("*.safetensors"):
        path.unlink()
    for target in ("opt", "exported", "run"):
        assert spikeless(f"audit {target} --theory-only").code == 0


def test_theory_and_measurement_of_one_recipe_agree(desk, spikeless):
    line = f"audit gpt2_nano {SMALL} {FEW} --json -"
    drawn, declared = strict(spikeless(line).out), strict(spikeless(f"{line} --theory-only").out)
    key = "first_layer_ffn_gain"
    assert drawn["theory"][key] == pytest.approx(declared["theory"][key], rel=1e-9)


def test_text_is_read_with_the_models_own_tokenizer(models, spikeless):
    sources = {
        "exported --seq 16": "pydocs:asyncio+logging",
        "run --seq 16 --data 'text:notes/*.txt'": "text:notes/*.txt",
        "exported --seq 16 --data random": "uniform random tokens",
        f"gpt2_nano {SMALL} --seq 16 --set data.tokenizer=bytes --data 'text:notes/*.txt'": "text:notes/*.txt",
        "audit_lab:make --seq 16": "uniform random tokens",
    }
    for options, source in sources.items():
        done = spikeless(f"audit {options} --json - --fail-on never")
        assert done.code == 0, done.err
        assert strict(done.out)["batch"]["source"] == source


def test_a_model_that_does_not_say_its_context_length_is_asked(models, spikeless):
    """40 positions and 60 ids, with a matrix of 128 rows."""
    found = strict(spikeless("audit audit_lab:make --json - --fail-on never").out)
    assert found["batch"]["tokens"] == 2 * 40
    assert found["model"]["vocab_size"] == 60
    done = spikeless("audit audit_lab:make --seq 41")
    assert (done.code, "--seq 41 is out of range; the model takes 2 to 40 tokens" in done.err) == (2, True)


def test_a_factory_is_repeatable(models, spikeless):
    first, second = (strict(spikeless(f"audit audit_lab:make {FEW} --json -").out) for _ in range(2))
    assert first["logits"] == second["logits"]
    assert first["score"] == second["score"]


# --- options ---


def test_the_plan_is_judged(models, spikeless):
    line = f"audit audit_lab:make {FEW} --optimizer 'adamw(eps=1e-6)' --lr 1000 --steps 5 --json - --fail-on never"
    found = strict(spikeless(line).out)
    reading = found["learning_rate"]
    assert (reading["eps"], reading["lr"]) == (1e-6, 1000)
    assert reading["range_lrs"]
    assert len(reading["range_lrs"]) == len(reading["range_losses"]) <= 5
    assert "warn" in {each["severity"] for each in found["findings"] if each["check"] == "learning_rate"}
    assert found["decayed_roles"]


def test_the_planned_rate_may_stand_in_the_optimizer(models, spikeless):
    for options, lr in (("adamw(lr=0.5)", 0.5), ("adamw", None), ("adamw(lr=0.5)' --lr '0.25", 0.25)):
        found = strict(spikeless(f"audit audit_lab:make --seq 8 --optimizer '{options}' --json - --fail-on never").out)
        assert found["learning_rate"]["lr"] == lr


def test_the_user_can_tell_what_is_not_found(models, spikeless):
    done = spikeless(f"audit audit_lab:make {FEW} --part blocks=layers --part embedding=wte --part head=head --json -")
    assert strict(done.out)["model"]["num_layers"] == 2
    for option, state in (("--trained", "trained"), ("--initial", "initial")):
        done = spikeless(f"audit audit_lab:make {FEW} {option} --json - --fail-on never")
        assert strict(done.out)["model"]["state"] == state


def test_exit_codes_follow_the_findings(models, spikeless):
    """Of NaN weights, which fail, and of a deep shape that only warns."""
    bad, doubtful = f"audit audit_lab:broken {FEW}", "audit spike_no_more_350m --theory-only"
    codes = {
        f"{bad}": 1,
        f"{bad} --fail-on fail": 1,
        f"{bad} --fail-on warn": 1,
        f"{bad} --fail-on never": 0,
        f"{doubtful}": 0,
        f"{doubtful} --fail-on warn": 1,
        f"{doubtful} --with scaled_embed --fail-on warn": 0,
    }
    assert {line: spikeless(line).code for line in codes} == codes


@pytest.mark.parametrize("target", ["nan", "audit_lab:broken"])
def test_weights_that_are_not_finite_are_a_finding(target, models, spikeless):
    done = spikeless(f"audit {target} {FEW} --json out.json")
    assert (done.code, done.err) == (1, "")
    found = strict((models / "out.json").read_text())
    assert found["verdict"] == "fail"
    assert "broken_weights/not-finite" in {f"{each['check']}/{each['code']}" for each in found["findings"]}
    assert found["logits"]["loss"] == "NaN"
    assert found["score"] is None
    assert "Verdict" in done.out


def test_known_findings_do_not_fail(models, spikeless):
    line = "audit spike_no_more_350m --theory-only --fail-on warn"
    assert spikeless(f"{line} --json known.json").code == 1
    again = spikeless(f"{line} --baseline known.json --junit audit.xml --json second.json")
    assert again.code == 0
    assert all(each["accepted"] for each in strict((models / "second.json").read_text())["findings"] if each["why"])
    assert ET.parse(models / "audit.xml").findall(".//skipped")
    assert not ET.parse(models / "audit.xml").findall(".//failure")
    assert spikeless("audit audit_lab:broken --seq 16 --fail-on warn --baseline known.json").code == 1


def test_every_output_is_written(models, spikeless):
    done = spikeless(f"audit audit_lab:make {FEW} --json new/a.json --html new/a.html --junit new/a.xml")
    assert done.code == 0
    for words in ("report: new/a.html", "JUnit: new/a.xml", "JSON: new/a.json", "Verdict", "audit_lab:make: GPT"):
        assert words in done.out
    found = strict((models / "new" / "a.json").read_text())
    cases = ET.parse(models / "new" / "a.xml").getroot().findall(".//testcase")
    assert len(cases) == len(found["findings"]) > 5
    page = (models / "new" / "a.html").read_text()
    assert "audit_lab:make" in page
    loads = r"""<script[^>]*\ssrc|<link(?! rel="icon" href="data:,")|\ssrc=["']?http|url\(["']?http|@import"""
    assert not re.search(loads, page)
    printed = spikeless(f"audit audit_lab:make {FEW} --json - --html new/b.html")
    assert {**strict(printed.out), "seconds": 0, "command": ""} == {**found, "seconds": 0, "command": ""}
    assert (models / "new" / "b.html").exists()


def test_the_command_is_recorded(models, spikeless):
    found = strict(spikeless(f"audit audit_lab:make {FEW} --lr 1e-3 --json -").out)
    assert found["command"] == f"spikeless audit audit_lab:make {FEW} --lr 1e-3 --json -"


def test_two_models_are_compared(models, spikeless):
    line = "audit spike_no_more_350m --theory-only --against spike_no_more_1p7b"
    done = spikeless(line)
    assert done.code == 0
    for words in ("spike_no_more_350m", "spike_no_more_1p7b", "first-layer FFN gain", "B / A"):
        assert words in done.out
    assert strict(spikeless(f"{line} --json -").out)
    measured = spikeless(f"audit audit_lab:make {FEW} --against audit_lab:other")
    assert measured.code == 0
    assert "critical learning rate" in measured.out


def test_an_audit_from_python(models, monkeypatch):
    import spikeless as package

    monkeypatch.syspath_prepend(models)
    from audit_lab import GPT

    torch.manual_seed(0)
    model = GPT().to(torch.bfloat16)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    report = package.audit(model, torch.arange(66).view(2, 33) % 60)
    assert report.verdict in ("pass", "warn")
    assert report.measured.batch.source == "given"
    assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())
    assert model.training
    for bad in (torch.zeros(2, 33), torch.arange(66), torch.full((2, 33), 60), torch.zeros(2, 1, dtype=torch.long)):
        with pytest.raises(package.UserError, match="batch has"):
            package.audit(model, bad)


# --- what it refuses ---

REFUSED = [
    # the target
    ("gpt2_nan", "did you mean 'gpt2_nano'"),
    ("nowhere", "no recipe, no path here, no module:factory"),
    ("some/model", "some/model: there is no such path, it is not in the hub's local cache, and the hub cannot be"),
    ("notes", "give a recipe, a run folder"),
    ("audit_lab.py", "audit_lab:FUNCTION"),
    ("notes/1.txt", "is no model; give a recipe"),
    ("pickle", "pickle/pytorch_model.bin: it is a pickle, which can run code as it is read, so it is refused; convert"),
    ("model.pt", "model.pt: it is a pickle"),
    ("bare", "has weights but no config.json; put"),
    ("damaged", "damaged/config.json is not valid JSON"),
    ("damaged/config.json", "damaged/config.json is not valid JSON"),
    ("strange", "optt"),
    ("untold", "model_type"),
    ("bert --seq 16", "is not a causal language model: its logits change with later tokens"),
    ("audit_lab:perceptron", "a causal language model is needed, whose forward takes token ids"),
    ("audit_lab:perceptron --theory-only", "a causal language model is needed, whose forward takes token ids"),
    ("audit_lab:needy --theory-only", "'memory' and 'mask'"),
    ("audit_lab:sees", "is not a causal language model: its logits change with later tokens"),
    ("audit_lab:needy", "'memory' and 'mask'; a causal language model is needed"),
    ("audit_lab:fails", "audit_lab:fails failed: RuntimeError: the cupboard is bare"),
    ("audit_lab:sized", "it is called without arguments"),
    ("audit_lab:nothing", "returned NoneType; a torch.nn.Module is needed"),
    ("audit_lab:number", "is no factory: it cannot be called"),
    ("audit_lab:missing", "module 'audit_lab' has no attribute 'missing'"),
    ("nowhere_lab:make", "No module named 'nowhere_lab'"),
    (f"gpt2_nano {SMALL} --against gpt2_nan", "did you mean 'gpt2_nano'"),
    # what is changed in it
    ("gpt2_nano --with scaled_embedd", "did you mean 'scaled_embed'"),
    ("gpt2_nano --set optim.rl=1", "did you mean 'optim.lr'"),
    ("run --with scaled_embed", "these weights are there already"),
    ("exported --with scaled_embed", "these weights are there already"),
    ("qwen --with scaled_embed", "these weights are there already"),
    ("opt_config --with scaled_embed", "--with and --set edit recipes and the models of our families"),
    ("opt_config --set model.width=64", "--with and --set edit recipes and the models of our families"),
    ("audit_lab:make --with scaled_embed", "these weights are there already"),
    # the batch
    ("audit_lab:make --batch 0", "--batch 0 is out of range; use 1 or more"),
    ("audit_lab:make --seq 1", "--seq 1 is out of range; the model takes 2 to"),
    ("opt --seq 65", "--seq 65 is out of range; the model takes 2 to 64 tokens"),
    ("gpt2_nano --seq 999", "--seq 999 is out of range; the model takes 2 to 256 tokens"),
    ("exported --batch 99 --seq 16 --data text:notes/1.txt", "needs 1,683; use a smaller batch or more text"),
    ("exported --data 'text:nothing/*.txt'", "no file matches 'nothing/*.txt'"),
    ("exported --data 'txet:notes/*.txt'", "did you mean 'text:notes/*.txt'"),
    ("exported --data 'mix:0.5*pydocs+0.5*text:notes/*.txt'", "audit one source at a time"),
    ("audit_lab:make --data 'text:notes/*.txt'", "has no tokenizer; leave --data out for random tokens"),
    # the plan
    ("audit_lab:make --lr 0", "--lr 0.0 is out of range; use a number above 0"),
    ("audit_lab:make --lr nan", "--lr nan is out of range"),
    ("audit_lab:make --lr -1", "--lr -1.0 is out of range"),
    ("audit_lab:make --optimizer sgd", "--optimizer 'sgd' is unknown; write adamw"),
    ("audit_lab:make --optimizer 'adamw(epsi=1)'", "did you mean 'eps'"),
    ("audit_lab:make --optimizer 'adamw(eps=-1)'", "eps=-1.0 is out of range; use a number above 0"),
    ("audit_lab:make --steps 1", "--steps 1 is out of range; use 2 or more"),
    ("audit_lab:make --steps -1", "--steps"),
    ("audit_lab:make --part blocks", "write NAME=PATH"),
    ("audit_lab:make --part block=layers", "did you mean 'blocks'"),
    ("audit_lab:make --part blocks=layer", "did you mean 'layers'"),
    # outputs
    ("audit_lab:make --fail-on error", "valid levels: fail, never, warn"),
    ("audit_lab:make --baseline none.json", "cannot read none.json"),
    ("audit_lab:make --baseline notes/1.txt", "notes/1.txt is not valid JSON"),
    ("audit_lab:make --baseline opt/config.json", "opt/config.json is not an audit report; expected what"),
    ("audit_lab:make --against audit_lab:other --html a.html", "leave --against out"),
    ("audit_lab:make --against audit_lab:other --junit a.xml", "leave --against out"),
    ("audit_lab:make --theory-only --json notes/1.txt/a.json", "cannot write notes/1.txt/a.json"),
    ("audit_lab:make --theory-only --html notes", "cannot write notes"),
    ("audit_lab:make --theory-only --junit notes/1.txt/a.xml", "cannot write notes/1.txt/a.xml"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[options for options, _ in REFUSED])
def test_a_mistake_is_one_message_and_exit_code_2(options, message, models, spikeless):
    before = sorted(path for path in models.rglob("*") if "__pycache__" not in path.parts)
    done = spikeless(f"audit {options}")
    assert done.code == 2, done.out
    assert message in done.err.replace("\n", " ")
    assert done.err.count("error:") <= 1
    assert not done.out
    assert sorted(path for path in models.rglob("*") if "__pycache__" not in path.parts) == before


def test_ids_that_the_model_does_not_have_are_refused(models, spikeless):
    """The run's tokenizer beside a model of 300 rows is fine; one with more ids is not."""
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(models / "exported" / file, models / "opt")
    assert spikeless("audit opt --seq 16 --data 'text:notes/*.txt'").code == 0
    tokenizer = json.loads((models / "opt" / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    end = next(each for each in tokenizer["added_tokens"])
    first = next(name for name in vocab if name != end["content"] and vocab[name] == ord("t"))
    vocab[first] = 4000
    (models / "opt" / "tokenizer.json").write_text(json.dumps(tokenizer))
    done = spikeless("audit opt --seq 16 --data 'text:notes/*.txt'")
    assert done.code == 2
    assert "(id 4000), but the model has rows for ids below 300 only" in done.err


def test_a_hub_name_without_network_fails_at_once(desk, spikeless, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(desk / "cache"))
    spikeless("audit no-one/nothing")  # imports
    started = time.monotonic()
    done = spikeless("audit no-one/nothing@main")
    assert time.monotonic() - started < 1
    assert (done.code, "give a local folder" in done.err) == (2, True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("spikeless.preflight.target.hub_answers", lambda: False)
    assert "the hub cannot be reached" in spikeless("audit no-one/nothing").err


def test_without_transformers_the_message_says_what_to_install(models, spikeless, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "transformers", None)
    for target in ("opt", "opt_config", "qwen/config.json"):
        done = spikeless(f"audit {target} --theory-only")
        assert (done.code, "pip install transformers" in done.err) == (2, True)
    for target in ("gpt2_nano", "exported", "audit_lab:make"):
        assert spikeless(f"audit {target} --theory-only").code == 0


def test_the_exit_codes_of_a_process(models):
    command = [sys.executable, "-c", "from spikeless.cli import main; main()", "audit"]
    lines = {"audit_lab:broken --seq 16": 1, "audit_lab:broken --seq 16 --fail-on never": 0, "audit_lab:fails": 2}
    for line, code in lines.items():
        done = subprocess.run([*command, *line.split()], capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert "Traceback" not in done.stderr + done.stdout
        assert bool(done.stdout) == (code != 2)
        assert done.stderr.startswith("error: ") == (code == 2)


def test_the_session_is_left_as_it_was(models, spikeless):
    threads, grad, default = torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()
    torch.manual_seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spikeless(f"audit audit_lab:make {FEW} --steps 3")
    assert (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()) == (threads, grad, default)
