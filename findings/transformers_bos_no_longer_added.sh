#!/usr/bin/env bash
# One tokenizer folder begins every text with <s> in transformers 4 and with nothing in transformers 5.
#
# Versions:  transformers 4.57.6 and 5.23.0
# One would guess: `add_bos_token: true` in tokenizer_config.json means the same in both. The folder is that of a model of
# Llama's kind with byte-level BPE: tokenizer.json has no template, the class is LlamaTokenizer. Version 4 makes the
# template from `add_bos_token`; version 5 takes another class, says so, and does not look at `add_bos_token` again. A
# model that was trained with <s> in front is then evaluated, or trained further, without it.
#
# Output:
#   4.57.6: ['<s>', 'the', 'Ġcat']
#   5.23.0: ['the', 'Ġcat']
set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TRANSFORMERS_NO_ADVISORY_WARNINGS=1
for version in 4.57.6 5.23.0; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/pip" install --quiet --disable-pip-version-check "transformers==$version"
done
cd "$work"
cat > make.py <<'END'
import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

Path("model").mkdir()
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(
    vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
)
tokenizer.train_from_iterator(["the cat sat on the mat"] * 10, trainer)
tokenizer.save("model/tokenizer.json")
config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}
Path("model/tokenizer_config.json").write_text(json.dumps(config))
END
cat > read.py <<'END'
import sys

import transformers

tokens = transformers.AutoTokenizer.from_pretrained("model")("the cat").tokens()
print(f"{transformers.__version__}: {tokens}")
assert tokens == sys.argv[1:], "the behaviour has changed"
END
4.57.6/bin/python make.py
4.57.6/bin/python read.py '<s>' the Ġcat
5.23.0/bin/python read.py the Ġcat
