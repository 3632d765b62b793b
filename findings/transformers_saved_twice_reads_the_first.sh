#!/usr/bin/env bash
# A model saved in shards into the folder of an earlier save is not the model that is loaded from there.
#
# Versions:  transformers 5.23.0, torch 2.13.0
# One would guess: `save_pretrained` leaves a folder that `from_pretrained` reads as what was saved last; it does remove
# old shards. What happens: an old model.safetensors stays beside the new shards and their index, and is preferred to
# them. Training that saves a small model whole and later, grown over the shard size or with another `max_shard_size`,
# in shards goes back to the first weights at the next load, without a word.
#
# Output:
#   in the folder: model.safetensors and 6 shards with an index
#   loaded is the model that was saved first
set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0
cd "$work"
venv/bin/python - <<'END'
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
first, second = (AutoModelForCausalLM.from_config(LlamaConfig(**sizes)) for _ in range(2))
first.save_pretrained("model")
second.save_pretrained("model", max_shard_size="20KB")
names = {path.name for path in Path("model").iterdir()}
assert {"model.safetensors", "model.safetensors.index.json"} <= names, "the behaviour has changed"
print(f"in the folder: model.safetensors and {sum('-of-' in name for name in names)} shards with an index")

loaded = AutoModelForCausalLM.from_pretrained("model").state_dict()
assert all(torch.equal(weight, loaded[name]) for name, weight in first.state_dict().items()), "the behaviour has changed"
assert not torch.equal(second.lm_head.weight, loaded["lm_head.weight"])
print("loaded is the model that was saved first")
END
