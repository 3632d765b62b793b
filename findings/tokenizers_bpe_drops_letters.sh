#!/usr/bin/env bash
# A BPE tokenizer without an unknown token leaves letters out that it has not learnt; all other models refuse.
#
# Version:   tokenizers 0.23.3
# One would guess: what cannot be encoded raises an error, as with WordLevel, WordPiece and Unigram of the same package.
# What happens: BPE drops the letters and goes on. With the byte-level pre-tokenizer the same happens to bytes if the
# trainer is not given `initial_alphabet`: whole words of a corpus vanish, and its loss looks better than it is.
#
# Output:
#   BPE: 'the dog' -> ['the ', 'o']
#   BPE of bytes, no initial alphabet: 'dog zoo' -> ['o', 'Ġ', 'o', 'o']
#   WordLevel: WordLevel error: Missing [UNK] token from the vocabulary
#   WordPiece: WordPiece error: Missing [UNK] token from the vocabulary
#   Unigram: Encountered an unknown token but `unk_id` is missing
set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tokenizers==0.23.3
"$work/venv/bin/python" - <<'END'
from tokenizers import Tokenizer, models, pre_tokenizers, trainers


def trained(name, cut=None):
    tokenizer = Tokenizer(getattr(models, name)())
    if cut:
        tokenizer.pre_tokenizer = cut
    trainer = getattr(trainers, f"{name.replace('BPE', 'Bpe')}Trainer")
    tokenizer.train_from_iterator(["the cat sat on the mat"] * 10, trainer(vocab_size=40, show_progress=False))
    return tokenizer


tokens = trained("BPE").encode("the dog").tokens
print(f"BPE: 'the dog' -> {tokens}")
assert "".join(tokens) == "the o", "the behaviour has changed"
tokens = trained("BPE", pre_tokenizers.ByteLevel(add_prefix_space=False)).encode("dog zoo").tokens
print(f"BPE of bytes, no initial alphabet: 'dog zoo' -> {tokens}")
assert len("".join(tokens)) < len("dog zoo"), "the behaviour has changed"
for name in ("WordLevel", "WordPiece", "Unigram"):
    try:
        trained(name, pre_tokenizers.Whitespace()).encode("the dog")
    except Exception as error:
        print(f"{name}: {error}")
    else:
        raise SystemExit("the behaviour has changed")
END
