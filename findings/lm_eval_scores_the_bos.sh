#!/usr/bin/env bash
# lm-eval's perplexity counts the beginning-of-text token as text, if the tokenizer adds it.
#
# Versions:  lm_eval 0.4.13, transformers 5.23.0, torch 2.13.0
# One would guess: the log-likelihood of a document is that of its own tokens, each given those before it. What happens:
# `loglikelihood_rolling` puts a prefix token in front of what the tokenizer gives, and the tokenizer has put <s> there
# already. So the model sees <s> <s> the …, is scored on the second <s> as well, which no training text has there, and
# has all later tokens one place further. With `add_bos_token=False` it is as one would guess; `loglikelihood` is anyway.
#
# Output:
#   tokens of the document: [260, 266]; ids that are scored: [0, 260, 266], after [0]
#   with add_bos_token=False: ids that are scored: [260, 266], after [0]
set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 'lm_eval[hf]==0.4.13'
cd "$work"
venv/bin/python - 2>log <<'END' || { cat log >&2; exit 1; }
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = "the cat"
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(
    vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
)
tokenizer.train_from_iterator(["the cat sat on the mat"] * 10, trainer)
tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=300, **sizes))


def scored(**settings):
    """The ids that are scored, and those in front of them."""
    evaluated = HFLM(pretrained=model, tokenizer=wrapped, **settings)
    found = []

    def watch(requests, *rest, **more):
        found.extend((continuation, context) for _, context, continuation in requests)
        return score(requests, *rest, **more)

    score, evaluated._loglikelihood_tokens = evaluated._loglikelihood_tokens, watch
    request = Instance(request_type="loglikelihood_rolling", doc={}, arguments=(TEXT,), idx=0)
    evaluated.loglikelihood_rolling([request], disable_tqdm=True)
    (only,) = found
    return only


own = wrapped(TEXT, add_special_tokens=False).input_ids
ids, context = scored()
print(f"tokens of the document: {own}; ids that are scored: {ids}, after {context}")
assert ids == [wrapped.bos_token_id, *own] and context == [wrapped.bos_token_id], "the behaviour has changed"
ids, context = scored(add_bos_token=False)
print(f"with add_bos_token=False: ids that are scored: {ids}, after {context}")
assert ids == own, "the behaviour has changed"
END
