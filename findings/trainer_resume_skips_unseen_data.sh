#!/usr/bin/env bash
# A Trainer that goes on with more gradient accumulation skips data that it has never seen.
#
# Versions:  transformers 5.23.0, accelerate 1.15.0, torch 2.13.0
# One would guess: a run that goes on skips the samples that it has seen. What happens: it skips the steps done times the
# batches of a step *now*. From 1 to 2 accumulated batches (half as many devices, the same effective batch is the usual
# reason to change it) as many samples are passed over as were seen; no warning tells it. The other way round samples
# are seen twice.
#
# Output:
#   seen before: samples 0 to 15 of the epoch's order
#   seen after: samples 32 to 47; never seen: 16 to 31
set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
cd "$work"
venv/bin/python - 2>log <<'END' || { cat log >&2; exit 1; }
import torch
from transformers import Trainer, TrainingArguments


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.zeros(1)), []

    def forward(self, x, labels=None):
        self.seen += x.tolist()
        return {"loss": (self.weight - x.float().mean() / 64).square().sum()}


def collate(rows):
    return {"x": torch.tensor([row["x"] for row in rows]), "labels": torch.zeros(len(rows))}


def seen(steps, accumulated, checkpoint=None):
    arguments = TrainingArguments(
        output_dir="out",
        per_device_train_batch_size=4,
        gradient_accumulation_steps=accumulated,
        max_steps=steps,
        save_steps=4,
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    model = Model()
    data = [{"x": index} for index in range(64)]
    trainer = Trainer(model, arguments, train_dataset=data, data_collator=collate)
    trainer.log = lambda *_: None
    trainer.train(resume_from_checkpoint=checkpoint)
    return model.seen


order = seen(16, 1)
place = {sample: index for index, sample in enumerate(order)}
before = [place[sample] for sample in seen(4, 1)]
after = [place[sample] for sample in seen(6, 2, "out/checkpoint-4")]
print(f"seen before: samples {before[0]} to {before[-1]} of the epoch's order")
print(f"seen after: samples {after[0]} to {after[-1]}; never seen: {before[-1] + 1} to {after[0] - 1}")
assert before == list(range(16)) and after == list(range(32, 48)), "the behaviour has changed"
END
