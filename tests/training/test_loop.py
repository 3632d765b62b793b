"""The loop against what it must compute."""

import itertools
import json
import math
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from spikeless import stabilizers
from spikeless.config import names_in, replace_at, to_dict
from spikeless.data import Sampler, parse_corpus, prepare, validation_batches
from spikeless.errors import SpikelessWarning, UserError
from spikeless.evaluation import evaluate_perplexity, load_subject
from spikeless.nn.boundaries import Separate
from spikeless.training import loop
from spikeless.training.build import build_model, fill_vocabulary
from spikeless.training.checkpoints import Checkpoints
from spikeless.training.loop import train
from spikeless.training.objective import Objective, choose_precision
from spikeless.training.state import TrainState


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_it_is_plain_training(tmp_path, quick_run):
    """The run against a loop written out with torch alone: the same losses and the same gradient norms."""
    run = replace_at(quick_run, {"steps": 6})
    train(run, tmp_path)
    data = prepare(run.data.spec, run.data.tokenizer, validation_fraction=run.data.validation_fraction)
    run = fill_vocabulary(run, data)
    model = build_model(run, "cpu")
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], betas=(0.9, 0.95)
    )
    sampler = Sampler(data.train, run.data.sequence_length, run.seed)
    for step, row in enumerate(rows_of(tmp_path)[1:]):
        inputs, targets = sampler.batch(step, 4)
        loss = torch.nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (step + 1) / 50
        optimizer.step()
        optimizer.zero_grad()
        assert row["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert row["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)


def test_the_exact_gradient_variance_is_that_of_the_step(tmp_path, quick_run):
    """Read before the optimizer's step: step 1's is that of the initial weights on the first batch."""
    run = replace_at(quick_run, {"steps": 1, "metrics.every": 1, "metrics.diagnostics": ("gradient_variance_exact",)})
    train(run, tmp_path)
    data = prepare(run.data.spec, run.data.tokenizer, validation_fraction=run.data.validation_fraction)
    model = build_model(fill_vocabulary(run, data), "cpu")
    gradients = []
    for inputs, targets in zip(*Sampler(data.train, run.data.sequence_length, run.seed).batch(0, 4), strict=True):
        loss = torch.nn.functional.cross_entropy(model(inputs[None]).flatten(0, 1), targets)
        gradients.append(torch.autograd.grad(loss, model.embedding.weight)[0])
    expected = torch.stack(gradients).double().var(0, correction=1).mean().item() / 4
    reading = rows_of(tmp_path)[1]["gradient_variance/exact/token_embedding"]
    assert reading == pytest.approx(expected, rel=1e-3)


def test_the_update_norm_is_that_of_the_optimizers_step(tmp_path, quick_run, monkeypatch):
    """Against the checkpoints before and after it; a copy of the parameters is held only while it is read."""
    held, snapshot = [], TrainState.snapshot

    def noted(self, *arguments):
        held.append((self.step, bool(self._previous)))
        return snapshot(self, *arguments)

    monkeypatch.setattr(TrainState, "snapshot", noted)
    changes = {"steps": 4, "metrics.every": 2, "metrics.diagnostics": ("tev", "update_norm")}
    run = replace_at(quick_run, changes | {"checkpoint.every": 1, "checkpoint.keep_last": 9})
    train(run, tmp_path / "with")
    rows = rows_of(tmp_path / "with")
    assert [row["step"] for row in rows if "update_norm" in row] == [2, 4], "none before the first step"
    folder = Checkpoints(tmp_path / "with")
    weights = {step: load_file(folder.path(step) / "model.safetensors") for step in (1, 2, 3, 4)}
    for step in (2, 4):
        before = torch.cat([each.double().flatten() for each in weights[step - 1].values()])
        after = torch.cat([each.double().flatten() for each in weights[step].values()])
        assert rows[step]["update_norm"] == pytest.approx((after - before).norm().item(), rel=1e-5)
        assert rows[step]["update_ratio"] == pytest.approx(((after - before).norm() / before.norm()).item(), rel=1e-5)
    assert held == [(0, False), (1, False), (2, True), (3, False), (4, True)]
    held.clear()
    train(replace_at(run, {"metrics.diagnostics": ("tev",)}), tmp_path / "without")
    assert not any(kept for _, kept in held), "nobody asked for it"


def test_the_hidden_variance_is_that_of_the_first_part_of_the_batch(tmp_path, quick_run):
    run = replace_at(quick_run, {"steps": 1, "metrics.every": 1, "metrics.diagnostics": ("hidden_variance",)})
    train(run, tmp_path)
    data = prepare(run.data.spec, run.data.tokenizer, validation_fraction=run.data.validation_fraction)
    model = build_model(fill_vocabulary(run, data), "cpu")
    inputs, _ = Sampler(data.train, run.data.sequence_length, run.seed).batch(0, 4)
    expected = [each.double().var(-1, correction=0).mean().item() for each in model.streams(inputs[:1])]
    start, end = rows_of(tmp_path)
    assert [start[f"hidden_variance/00{depth}"] for depth in range(3)] == pytest.approx(expected, rel=1e-5)
    assert end["hidden_variance/002"] != start["hidden_variance/002"], "read after the step"


def test_without_a_report_none_is_written(tmp_path, quick_run):
    record = train(replace_at(quick_run, {"steps": 1}), tmp_path, report=False)
    assert record.summary().state == "finished"
    assert not (tmp_path / "report.html").exists()


def test_data_at_hand_are_not_prepared_again_but_where_a_run_goes_on(tmp_path, quick_run, monkeypatch):
    run = replace_at(quick_run, {"steps": 2})
    data = prepare(run.data.spec, run.data.tokenizer, validation_fraction=run.data.validation_fraction)
    train(run, tmp_path / "whole")
    monkeypatch.setattr("spikeless.training.loop.prepare", None)
    train(run, tmp_path / "given", data=data)
    whole, given = rows_of(tmp_path / "whole"), rows_of(tmp_path / "given")
    assert [row["loss"] for row in given[1:]] == [row["loss"] for row in whole[1:]]
    with pytest.raises(TypeError):
        train(replace_at(run, {"steps": 3}), tmp_path / "given", resume=True, data=data)


def test_what_was_skipped_is_said_recorded_and_reported(tmp_path, quick_run):
    texts = [
        f"document {number} of a short corpus, which has words enough" if number % 20 == 0 else None
        for number in range(900)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    spec = f"jsonl:{tmp_path}/a.jsonl"
    run = replace_at(quick_run, {"steps": 1, "data.spec": spec, "data.tokenizer": "bytes", "model.vocab_size": None})
    with pytest.warns(SpikelessWarning, match=r"855 of 900 documents \(95.0 %\) were skipped or repaired: null 855"):
        record = train(run, tmp_path / "run")
    (source,) = json.loads((tmp_path / "run" / "run.json").read_text())["sources"]
    assert source["data"] == spec
    assert source["selection"] == "1 file"
    assert source["train"]["skipped"] == {"null": 855}
    assert source["train"]["documents"] + source["validation"]["documents"] == 45
    assert "skipped or repaired: null 855" in record.data[spec]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "855 of 900 documents (95.0 %) were skipped" in page and "1 file; train: " in page


def test_chats_and_token_ids_are_trained_on_and_scored(tmp_path, quick_run):
    vocabulary = prepare("pydocs:json", "bytes").tokenizer
    vocabulary.save(tmp_path / "tok")
    config = json.loads((tmp_path / "tok" / "tokenizer_config.json").read_text())
    config = {key: value for key, value in config.items() if key != "spikeless"}
    config["chat_template"] = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    (tmp_path / "tok" / "tokenizer_config.json").write_text(json.dumps(config))
    rows = [
        {"messages": [{"role": "user", "content": f"{n} or {n * n}, which is more?"}] * 2, "ids": [*range(40), n]}
        for n in range(60)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = replace_at(quick_run, {"steps": 1, "data.tokenizer": f"hf:{tmp_path}/tok", "model.vocab_size": None})
    for field, known in (("messages", True), ("ids", False)):
        run = replace_at(run, {"data.spec": f"jsonl:{tmp_path}/a.jsonl,field={field}"})
        train(run, tmp_path / field, report=False)
        assert ("val_bits_per_byte" in rows_of(tmp_path / field)[-1]) == known
        subject = load_subject(tmp_path / field, device=torch.device("cpu"))
        found = evaluate_perplexity(subject, parse_corpus(run.data.spec).documents(), max_tokens=200)
        assert math.isfinite(found.loss) and (found.bits_per_byte is not None) == known
    chats = replace_at(run, {"data.spec": f"jsonl:{tmp_path}/a.jsonl,field=messages", "data.boundaries": Separate()})
    with pytest.raises(UserError, match=r"ends \d+ turns with end-of-text, at which .*=Separate would hide"):
        train(chats, tmp_path / "separate")


def test_micro_batches_change_nothing_but_rounding(tmp_path, quick_run):
    run = replace_at(quick_run, {"steps": 5})
    train(run, tmp_path / "one")
    train(replace_at(run, {"data.micro_batches": 4}), tmp_path / "four")
    for one, four in zip(rows_of(tmp_path / "one"), rows_of(tmp_path / "four"), strict=True):
        for key in ("loss", "grad_norm", "val_loss"):
            assert (key in one) == (key in four)
            assert one.get(key, 0) == pytest.approx(four.get(key, 0), rel=1e-4)


def test_what_a_run_folder_holds(tmp_path, quick_run):
    record = train(stabilizers.apply(quick_run, ["scaled_embed"]), tmp_path)
    held = {path.name for path in tmp_path.iterdir()}
    assert held >= {
        "run.json", "environment.json", "status.json", "metrics.jsonl", "tensorboard", "checkpoints",
        "report.html", "tokenizer.json",
    }  # fmt: skip
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert {"torch", "commit", "threads", "data_hash", "precision"} <= environment.keys()
    described = json.loads((tmp_path / "run.json").read_text())
    assert described["label"] == "scaled_embed"
    assert [change["path"] for change in described["diff"] if "embedding" in change["path"]] == [
        "model.embedding.multiplier"
    ]
    rows = rows_of(tmp_path)
    assert {"step", "loss", "lr", "grad_norm", "tokens", "tokens_per_second"} <= rows[1].keys()
    assert {"tev/mean", "tev/std", "tev/effective_mean", "tev/effective_std", "tev/relative"} <= rows[3].keys()
    assert rows[0]["tev/relative"] == 1.0
    assert [row["step"] for row in rows if "val_loss" in row] == [0, 5, 10, 15, 20]
    assert [row["step"] for row in rows if "tev/mean" in row] == [0, 3, 6, 9, 12, 15, 18]
    assert record.summary().final_val_loss < rows[0]["val_loss"]


def test_old_checkpoints_go_and_the_best_stays(tmp_path, quick_run, monkeypatch):
    run = replace_at(quick_run, {"checkpoint.keep_last": 2, "checkpoint.keep_best": 1, "checkpoint.every": 2})
    run = replace_at(run, {"evaluation.every": 2})
    losses = iter([9.0, 8.0, 7.0, 1.0, *[6.0] * 20])  # at steps 0, 2, 4, 6, …
    monkeypatch.setattr(loop, "evaluate", lambda *_: next(losses))
    train(run, tmp_path)
    assert Checkpoints(tmp_path).steps() == [6, 18, 20]
    assert (tmp_path / "checkpoints" / "latest").read_text().strip() == "step-00000020"


@pytest.mark.parametrize("technique", names_in("stabilizers"))
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_technique_trains(tmp_path, quick_run, family, technique, tiny_run):
    model = replace_at(tiny_run(family), {"model.vocab_size": None}).model
    run = replace_at(quick_run, {"model": model, "steps": 3, "metrics.loggers": (), "evaluation.every": 0})
    record = train(stabilizers.apply(run, [technique]), tmp_path)
    assert math.isfinite(record.summary().final_val_loss)


def test_a_checkpoint_carries_no_older_validation_loss(tmp_path, quick_run):
    train(replace_at(quick_run, {"steps": 8}), tmp_path)  # checkpoints at 4 and 8, evaluations at 0, 5 and 8
    assert Checkpoints(tmp_path).newest().state["val_loss"] is not None
    assert json.loads((Checkpoints(tmp_path).path(4) / "state.json").read_text())["val_loss"] is None


def test_choosing_a_precision_leaves_the_model_alone(tiny_run, build):
    run = tiny_run("llama")
    model = build(run)
    before = {name: p.clone() for name, p in model.named_parameters()}
    batch = (torch.randint(97, (2, 32)), torch.randint(97, (2, 32)))
    chosen, seconds = choose_precision("auto", model, run.loss, torch.device("cpu"), batch)
    assert chosen == ("bf16" if seconds["bf16"] < 0.95 * seconds["fp32"] else "fp32")
    assert all(torch.equal(before[name], p) and p.grad is None for name, p in model.named_parameters())


def test_bf16_is_near_fp32(tiny_run, build):
    run = tiny_run("gpt2")
    model = build(run)
    batch = (torch.randint(97, (2, 32)), torch.randint(97, (2, 32)))
    losses = [Objective(model, run.loss, torch.device("cpu"), p)(*batch) for p in ("fp32", "bf16")]
    assert losses[1].dtype == torch.float32
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-2)
    assert losses[0].item() != losses[1].item()


@pytest.mark.slow
def test_compiled_is_the_same_run(tmp_path, quick_run):
    run = replace_at(quick_run, {"steps": 4})
    train(run, tmp_path / "eager")
    compiled = replace_at(run, {"compile": True})
    code = (  # in a process of its own, since the shape checks of the tests do not compile
        "import json, sys; from spikeless.config import from_dict; from spikeless import RunConfig, train; "
        "train(from_dict(json.loads(sys.argv[1]), RunConfig), sys.argv[2])"
    )
    arguments = [json.dumps(to_dict(compiled)), str(tmp_path / "compiled")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    for one, other in zip(rows_of(tmp_path / "eager"), rows_of(tmp_path / "compiled"), strict=True):
        assert one.get("loss", 0) == pytest.approx(other.get("loss", 0), rel=1e-3)


def test_separate_documents_are_trained_and_validated_as_if_each_stood_alone(tmp_path, quick_run):
    for number in range(60):
        (tmp_path / f"{number}.txt").write_text(f"document {number} " + "abc " * (number % 5))
    changes = {"data.spec": f"text:{tmp_path}/*.txt", "data.boundaries": Separate(), "data.validation_fraction": 0.4}
    run = replace_at(quick_run, changes | {"steps": 1})
    train(run, tmp_path / "run")
    data = prepare(run.data.spec, run.data.tokenizer, validation_fraction=0.4)
    run = fill_vocabulary(run, data)
    model, end = build_model(run, "cpu"), data.tokenizer.end_of_text

    def by_hand(inputs, targets):
        losses = []
        for tokens, wanted in zip(inputs, targets, strict=True):
            starts = [0, *(i for i in range(1, len(tokens)) if tokens[i] == end), len(tokens)]
            assert len(starts) > 2
            for start, stop in itertools.pairwise(starts):
                logits = model(tokens[None, start:stop])[0]
                losses += torch.nn.functional.cross_entropy(logits, wanted[start:stop], reduction="none").tolist()
        return sum(losses) / len(losses)

    rows = rows_of(tmp_path / "run")
    assert rows[1]["loss"] == pytest.approx(by_hand(*Sampler(data.train, 32, run.seed).batch(0, 4)), abs=1e-5)
    windows = [torch.cat(each) for each in zip(*validation_batches(data.validation, 32, 4, 256), strict=True)]
    assert rows[0]["val_loss"] == pytest.approx(by_hand(*windows), abs=1e-5)
    bits = windows[1].numel() * rows[0]["val_loss"] / math.log(2)
    assert rows[0]["val_bits_per_byte"] == pytest.approx(bits / (windows[1] != end).sum().item())
