#!/usr/bin/env bash
# A tokenizer that is trained again gives one id to two tokens: the added ones keep their old ids.
#
# Version:   tokenizers 0.23.3
# One would guess: training replaces the vocabulary, and tokens that were added after the first training go, or move
# behind the new vocabulary. What happens: an added special token keeps its number, which the new vocabulary uses too.
# A piece of ordinary text then decodes as the special token, and would end a text. Saved and opened again the
# special token has another id, so ids made before and after do not agree.
#
# Output:
#   after the second training, id 14: he, <end>
#   'he' is encoded as [14] and decoded as '<end>'
#   <end> is 14; in the file that was saved from the same tokenizer it is 32
set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tokenizers==0.23.3
"$work/venv/bin/python" - <<'END'
from tokenizers import Tokenizer, models, pre_tokenizers, trainers


def train(tokenizer, text, size):
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator([text] * 5, trainer)


tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
train(tokenizer, "low lower lowest", 14)
tokenizer.add_special_tokens(["<end>"])
train(tokenizer, "the newest and the widest river runs", 40)

end = tokenizer.token_to_id("<end>")
(word,) = (token for token, index in tokenizer.get_vocab(with_added_tokens=False).items() if index == end)
ids = tokenizer.encode(word).ids
decoded = tokenizer.decode(ids, skip_special_tokens=False)
saved = Tokenizer.from_str(tokenizer.to_str()).token_to_id("<end>")
print(f"after the second training, id {end}: {word}, <end>")
print(f"{word!r} is encoded as {ids} and decoded as {decoded!r}")
print(f"<end> is {end}; in the file that was saved from the same tokenizer it is {saved}")
assert ids == [end] and decoded == "<end>" and saved != end, "the behaviour has changed"
END
