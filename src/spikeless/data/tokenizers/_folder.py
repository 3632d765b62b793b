"""The one reader of tokenizer folders: their files merged as transformers 5 does, and checked against each other."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from spikeless.config import from_dict
from spikeless.data.reading import Reading
from spikeless.data.tokenizers._fast import CONFIG, DEFINITION, END_OF_TEXT, FastTokenizer
from spikeless.data.tokenizers._ids import refuse_other_ids, refuse_wrong_claims, vocabulary_of
from spikeless.errors import SpikelessWarning, UserError
from spikeless.files import read_json

__all__ = ["FILES", "has_tokenizer", "read_tokenizer"]

SPECIAL_TOKENS, TEMPLATE, TEMPLATES = "special_tokens_map.json", "chat_template.jinja", "additional_chat_templates"
VOCABULARY, MERGES, ADDED = "vocab.json", "merges.txt", "added_tokens.json"
"""GPT-2's older form of a definition."""
FILES = (DEFINITION, CONFIG, SPECIAL_TOKENS, TEMPLATE, f"{TEMPLATES}/*.jinja", VOCABULARY, MERGES, ADDED)
USUAL_ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<EOS>", "[EOS]")
KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
"""Special tokens in the order in which transformers numbers those that are new."""
OURS, RECORD = "spikeless", "reading"
NOT_KEPT = (
    *("tokenizer_class", "auto_map", "name_or_path", "tokenizer_file", "vocab_file", "merges_file", "processor_class"),
    *("backend", "is_local", "local_files_only", "files_loaded", "init_inputs", OURS, RECORD),
    # said by the definition, once it is read
    *("add_bos_token", "add_eos_token", "add_prefix_space", "added_tokens_decoder", "model_specific_special_tokens"),
)
"""Fields of their configuration that name their code or their disk, or that another version spells otherwise."""
SAMPLE = "The quick brown fox jumps over the lazy dog, 0123456789 times."
RARE = "☃ \u0e01 \U00010348"


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer that can be read."""
    return (folder / DEFINITION).is_file() or all((folder / name).is_file() for name in (VOCABULARY, MERGES))


def read_tokenizer(path: Path, spec: str | None = None) -> FastTokenizer:
    """A tokenizer from its folder, or the `tokenizer.json` in it. Only JSON and templates are read; no code is run.

    What `FastTokenizer.save` wrote is taken as it is, with the reading that it records.

    Args:
        path: a run folder, a folder of shards, a Hugging Face folder.
        spec: what to call it; the path if it does not say so itself.

    Raises:
        UserError: missing, damaged, not a fast tokenizer, without an end-of-text token, with ids that contradict each
            other, or with a vocabulary that cannot hold a plain English sentence.
    """
    folder = path if path.is_dir() else path.parent
    config = _object(folder / CONFIG)
    ours = config.get(OURS, {})
    if not isinstance(ours, dict):
        raise UserError(f"{folder / CONFIG} is damaged: it is not a tokenizer configuration")
    spec = spec or ours.get("spec", str(path))
    file = path if path.is_file() else folder / DEFINITION
    if "fingerprint" in ours and file.is_file():
        return _saved(file, spec, config)
    reading = _recorded(config, folder)
    config = _merged(folder, config)
    definition = _text(file) if file.is_file() else _from_vocabulary(folder, spec, config)
    definition = _with_special_tokens(definition, folder, spec, config)
    vocabulary = vocabulary_of(definition, spec)
    end = _end_of_text(config, vocabulary, spec, folder)
    tokenizer = FastTokenizer(definition, spec, end, _kept(config), reading)
    refuse_other_ids(vocabulary, tokenizer.token_to_id, spec)
    refuse_wrong_claims(json.loads(definition), vocabulary, spec)
    if (bos := config.get("bos_token")) is not None and str(bos) not in vocabulary:
        raise UserError(f"{folder / CONFIG} names the bos token {str(bos)!r}, which {DEFINITION} does not have")
    _refuse_degenerate(tokenizer)
    return tokenizer


def _saved(file: Path, spec: str, config: dict[str, Any]) -> FastTokenizer:
    """What we wrote ourselves, checked when it was made. Version 0.1.0 recorded no reading: it had one for all.

    Warns:
        SpikelessWarning: that was another one than the tokenizer's own.
    """
    end, reading = config.get("eos_token", END_OF_TEXT), _recorded(config, file.parent)
    tokenizer = FastTokenizer(_text(file), spec, end, _kept(config), reading)
    if config[OURS]["fingerprint"] != tokenizer.fingerprint():
        raise UserError(f"{file} is damaged: it is not the tokenizer that {CONFIG} beside it was saved with")
    if tokenizer.is_recorded or not (tokenizer.reading.beginning or tokenizer.special_ids - {tokenizer.end_of_text}):
        return tokenizer
    warnings.warn(
        f"{file.parent} was made by spikeless 0.1.0: as then, documents begin without a token of their own and special "
        "tokens in text are read as text",
        SpikelessWarning,
        stacklevel=4,
    )
    return FastTokenizer(tokenizer.definition, spec, end, tokenizer.config, Reading())


def _recorded(config: Mapping[str, Any], folder: Path) -> Reading | None:
    if RECORD not in config:
        return None
    try:
        return from_dict(config[RECORD], Reading)
    except UserError as error:
        raise UserError(f"{folder / CONFIG} is damaged: {error}") from None


def _object(path: Path) -> dict[str, Any]:
    data = read_json(path) if path.is_file() else {}
    if not isinstance(data, dict):
        raise UserError(f"{path} is damaged: it is not an object")
    return data


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the tokenizer {path}: {error}; name a folder with a {DEFINITION}") from None


def _merged(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with what other files say: special tokens by older versions, templates by newer ones."""
    merged = {key: _token(value) for key, value in config.items() if value is not None}
    if "added_tokens_decoder" not in merged:
        older = {key: _token(value) for key, value in _object(folder / SPECIAL_TOKENS).items() if value is not None}
        merged |= older | {key: _listed(merged, key) + _listed(older, key) for key in _LISTS if key in older}
    files = {path.stem: path for path in sorted((folder / TEMPLATES).glob("*.jinja"))}
    files |= {"default": folder / TEMPLATE} if (folder / TEMPLATE).is_file() else {}
    if files:
        templates = [{"name": name, "template": _text(path)} for name, path in files.items()]
        merged["chat_template"] = templates[0]["template"] if files.keys() == {"default"} else templates
    return merged


_LISTS = ("additional_special_tokens", "extra_special_tokens")


def _listed(config: Mapping[str, Any], key: str) -> list[Any]:
    value = config.get(key)
    return value if isinstance(value, list) else []


def _token(value: Any) -> Any:
    """Special tokens that are objects, with their flags."""
    if isinstance(value, list):
        return [_token(each) for each in value]
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        return value
    flags = {flag: value[flag] for flag in ("single_word", "lstrip", "rstrip", "normalized") if flag in value}
    return AddedToken(value["content"], special=value.get("special", True), **flags)


def _named(config: Mapping[str, Any]) -> list[Any]:
    """All special tokens that a configuration names, in transformers' order."""
    fields = [f"{kind}_token" for kind in KINDS]
    fields += [key for key in config if key.endswith("_token") and key not in fields]
    extra = config.get("extra_special_tokens"), config.get("model_specific_special_tokens")
    tokens = [config.get(field) for field in fields]
    tokens += [token for each in extra if isinstance(each, dict) for token in each.values()]
    tokens += [token for key in _LISTS for token in _listed(config, key)]
    return [each for each in tokens if isinstance(each, str | AddedToken) and str(each)]


def _from_vocabulary(folder: Path, spec: str, config: dict[str, Any]) -> str:
    """GPT-2's byte-level BPE from two files; `add_bos_token` and `add_eos_token` count here, and only here."""
    if not has_tokenizer(folder):
        remedy = (
            f"write one with AutoTokenizer.from_pretrained(…).save_pretrained(…), or name a folder with a {DEFINITION}"
        )
        slow = "only a slow tokenizer's tokenizer.model" if (folder / "tokenizer.model").is_file() else "no tokenizer"
        raise UserError(f"cannot read the tokenizer {spec}: {folder} holds {slow}; {remedy}")
    try:
        tokenizer = tokenizers.Tokenizer(models.BPE.from_file(str(folder / VOCABULARY), str(folder / MERGES)))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{spec}: {VOCABULARY} and {MERGES} are no byte-level BPE: {error}") from None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(config.get("add_prefix_space")))
    tokenizer.decoder = decoders.ByteLevel()
    if tokenizer.token_to_id(END_OF_TEXT) is not None:
        config |= {f"{kind}_token": config.get(f"{kind}_token", END_OF_TEXT) for kind in ("bos", "eos", "unk")}
    added = _object(folder / ADDED)
    if not all(isinstance(each, int) for each in added.values()):
        raise UserError(f"{folder / ADDED} is damaged: it does not give every token a number")
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False) for token in sorted(added, key=added.__getitem__)]
    )
    refuse_other_ids(added, tokenizer.token_to_id, spec)
    around = [str(config.get(f"{kind}_token")) if config.get(f"add_{kind}_token") else None for kind in ("bos", "eos")]
    ids = {token: tokenizer.token_to_id(token) for token in around if token}
    if ids and None not in ids.values():
        single = [*around[:1], "$A", *around[1:]]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[each for each in single if each], special_tokens=list(ids.items())
        )
    return tokenizer.to_str()


def _with_special_tokens(definition: str, folder: Path, spec: str, config: Mapping[str, Any]) -> str:
    """The definition with the special tokens that stand in other files only, numbered as transformers numbers them."""
    vocabulary = vocabulary_of(definition, spec)
    try:
        tokenizer = tokenizers.Tokenizer.from_str(definition)
    except Exception as error:  # as above
        raise UserError(f"the tokenizer {spec} is not a tokenizer definition that can be read: {error}") from None
    listed = config.get("added_tokens_decoder")
    if listed is not None:
        by_id = {int(number): _token(token) for number, token in listed.items()}
    else:
        special = {str(each) for each in _named(config)}
        by_id = {
            number: AddedToken(token, normalized=token not in special, special=token in special)
            for token, number in _object(folder / ADDED).items()
        }
    known = tokenizer.get_added_tokens_decoder()
    if listed is None:
        by_id |= known
    flags = {repr(token) for token in known.values()}
    new = [token for _, token in sorted(by_id.items()) if repr(token) not in flags]
    there = {token.content for token in (*known.values(), *new)}
    ends = {str(config.get("bos_token")), str(config.get("eos_token"))}  # these are not made up
    for token in _named(config):
        if str(token) not in there and (str(token) in vocabulary or str(token) not in ends):
            there.add(str(token))
            new.append(AddedToken(token, special=True) if isinstance(token, str) else token)
    tokenizer.add_tokens(new)
    refuse_other_ids({token.content: number for number, token in by_id.items()}, tokenizer.token_to_id, spec)
    return tokenizer.to_str() if new else definition


def _kept(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a saved tokenizer is to say of itself, in the words that transformers 4 and 5 both read.

    Special tokens are texts: what else is said of one stands in the definition, and readers differ on it.
    """
    kept = {key: _plain(value) for key, value in config.items() if value is not None and key not in NOT_KEPT}
    listed = dict.fromkeys(str(each) for key in _LISTS for each in _plain(_listed(config, key)))
    named = [config.get(key) for key in ("extra_special_tokens", "model_specific_special_tokens")]
    named = {name: _plain(token) for each in named if isinstance(each, dict) for name, token in each.items()}
    for key, value in (("additional_special_tokens", list(listed)), ("extra_special_tokens", named)):
        kept.pop(key, None)
        kept |= {key: value} if value else {}
    return kept


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    token = _token(value)
    return token.content if isinstance(token, AddedToken) else token


def _end_of_text(config: Mapping[str, Any], vocabulary: Mapping[str, int], spec: str, folder: Path) -> str:
    if config.get("eos_token"):
        return str(config["eos_token"])
    for usual in USUAL_ENDS:
        if usual in vocabulary:
            return usual
    special = sorted({str(each) for each in _named(config)})
    raise UserError(
        f"{spec}: no end-of-text token: {CONFIG} names no eos_token, and the vocabulary has none of "
        f"{', '.join(USUAL_ENDS)} (special tokens found: {', '.join(special) or 'none'}); "
        f'write one as "eos_token" into {folder / CONFIG}'
    )


def _refuse_degenerate(tokenizer: FastTokenizer) -> None:
    """A vocabulary that failed to load makes nothing, or unknowns, of plain English."""
    tokenizer.encode(RARE)  # says if the unknown token that this needs is missing
    back = tokenizer.decode(tokenizer.encode(SAMPLE))
    if _letters(back) != _letters(SAMPLE):
        raise UserError(
            f"the vocabulary of {tokenizer.spec} is degenerate ({tokenizer.vocab_size} ids): of {SAMPLE!r} it makes "
            f"{back!r}; check how its {DEFINITION} was written"
        )


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()
