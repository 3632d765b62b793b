"""Of which Hugging Face families we know what a row of the table goes through, and whether a checkpoint is one of them.

Each name here was checked against the modeling code of transformers 5.23, and most by a tiny model
(`tests/evaluation/tev/test_every_family.py`). What is on no list is unknown: it does not count as "nothing happens".
"""

import re
from collections.abc import Mapping
from typing import Any

from spikeless.evaluation.tev.layout import ELSEWHERE, SCALES, is_head
from spikeless.pretrained.harmless import is_harmless, own_code
from spikeless.pretrained.match import is_buffer
from spikeless.weights import TensorInfo, Weights

__all__ = ["FACTORS", "NORMED", "PLAIN", "PROJECTED", "ROOTS", "ROUNDED_ROOTS", "TIED", "unfamiliar"]

_PLAIN = """
    apertus arcee aria_text axk1 axk2 bailing_hybrid bamba beam bitnet codegen cohere cohere2 cohere2_moe
    cohere_compass_text cwm dbrx deepseek_v2 deepseek_v3 deepseek_v32 diffllama doge dots1 dots3_note_text
    emu3_text_model ernie4_5 ernie4_5_moe exaone4 exaone_moe falcon falcon_mamba flex_olmo flint glm glm4 glm4_moe
    glm4_moe_lite glm4v_moe_text glm4v_text glm_moe_dsa gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox gpt_neox_japanese
    gpt_oss gptj helium hunyuan_v1_dense hunyuan_v1_moe hy_v3 internlm3 iquestcoder jais2 jamba jetmoe kimi_linear
    kolibri1 laguna lfm2 lfm2_moe lfm3 llama llama4_text longcat_flash mamba mamba2 mellum mimo_v2_flash minimax
    minimax_m2 minimax_m3_vl_text ministral ministral3 mistral mixtral mllama_text_model mpt nemotron nemotron_h olmo
    olmo2 olmo3 olmo_hybrid olmoe openai-gpt persimmon phi phi3 phimoe qwen2 qwen2_5_vl qwen2_5_vl_text qwen2_moe
    qwen2_vl qwen2_vl_text qwen3 qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next qwen3_vl_moe_text qwen3_vl_text
    seed_oss smollm3 solar_open stablelm starcoder2 xlstm youtu zamba zamba2
"""
PLAIN = frozenset(_PLAIN.split())
"""The row itself, to which at most positions are added."""
FACTORS: dict[str, tuple[str, float | None]] = {
    **dict.fromkeys(
        (
            *("granite", "granite_swa", "granitemoe", "granitemoe_swa", "granitemoehybrid", "granitemoeshared"),
            *("hyperclovax", "falcon_h1"),
        ),
        ("embedding_multiplier", 1.0),
    ),
    "minicpm": ("scale_emb", 1.0),
    "minicpm3": ("scale_emb", None),
    "grok-1": ("embedding_multiplier_scale", None),
}
"""A factor: the field that holds it, and its value where the field is absent."""
ROUNDED_ROOTS = frozenset(
    ("gemma", "gemma2", "gemma3_text", "gemma4_text", "gemma4_unified_text", "recurrent_gemma", "vaultgemma")
)
"""The square root of the width, rounded to the type in which the model computes."""
ROOTS: dict[str, tuple[str, bool]] = {
    **dict.fromkeys(("biogpt", "xglm"), ("scale_embedding", True)),
    **dict.fromkeys(("blenderbot", "marian", "pegasus"), ("scale_embedding", False)),
    "afmoe": ("mup_enabled", False),
}
"""The square root of the width, if a field says so: its name, and its value where it is absent."""
NORMED = frozenset(("bloom",))
"""A LayerNorm beside the table, `word_embeddings_layernorm`."""
PROJECTED = frozenset(("opt",))
"""A projection, `project_in`, where the table is narrow."""
TIED = frozenset(
    (
        *(
            "biogpt",
            "bloom",
            "cohere",
            "cohere2",
            "falcon",
            "falcon_mamba",
            "gemma",
            "gemma2",
            "gemma3_text",
            "gpt-sw3",
        ),
        *("gpt2", "gpt_bigcode", "gpt_neo", "lfm2", "mamba", "mpt", "openai-gpt", "opt", "recurrent_gemma", "smollm3"),
        *("starcoder2", "vaultgemma", "xglm"),
    )
)
"""Families that tie head and table where config.json does not say."""
_WRAPPERS = """
    audioflamingo3 aya_vision cohere2_vision deepseek_vl emu3 fast_vlm fuyu gemma3 gemma4 gemma4_unified glm46v glm4v
    glm4v_moe got_ocr2 idefics2 idefics3 internvl kimi_k25 lfm2_vl lighton_ocr llama4 llava llava_next
    llava_next_video llava_onevision mistral3 mllama ovis2 paligemma qwen2_5_vl qwen2_audio qwen2_vl qwen3_5
    qwen3_5_moe qwen3_vl qwen3_vl_moe smolvlm video_llava vipllava voxtral
"""
WRAPPERS = frozenset(_WRAPPERS.split())
"""Multimodal models that look tokens up as their language model does."""

_FAMILIES = PLAIN | FACTORS.keys() | ROUNDED_ROOTS | ROOTS.keys() | NORMED | PROJECTED
_SUSPECT = re.compile(r"emb.*(scal|mult|norm|factor|proj)|(scal|mult|norm|factor|proj|mup).*emb|mup|per_layer_input")
_FINAL_NORM = re.compile(
    r"(.*\.)?(norm|ln_f|norm_f|final_layernorm|final_layer_norm|layer_norm|layernorm|out_norm)\.(weight|bias)"
)
_KNOWN = re.compile(
    r"(.*\.)?(wpe|embed_positions|positions_embed|score|classifier|v_head|value_head)(\.\w+)?\.(weight|bias)|(.*\.)?mtp\..*"
)
_WIDTHS = ("hidden_size", "n_embd", "d_model")


def unfamiliar(table: TensorInfo, config: Mapping[str, Any], wrapper: str | None, weights: Weights) -> str | None:
    """Why we do not know what this checkpoint's model does with a row; None if we do.

    Args:
        table: the input embedding.
        config: the text part of config.json.
        wrapper: the multimodal model around it, if there is one.
        weights: what lies beside the table.
    """
    if not config:
        return "no config.json"
    kind = str(config.get("model_type", "no model_type"))
    if wrapper is not None and wrapper not in WRAPPERS:
        return str(wrapper)
    if kind not in _FAMILIES:
        return kind
    code = own_code(config.get("auto_map"), wrapper or kind)
    if code is not None:
        return f"code of its own, {code}"
    own = _own_fields(kind)
    for name, value in config.items():
        if _SUSPECT.search(name) and name not in own and not is_harmless(name, value):
            return name
    width = next((config[name] for name in _WIDTHS if isinstance(config.get(name), int)), table.shape[1])
    if width != table.shape[1] and kind not in PROJECTED:
        return f"a table of width {table.shape[1]} in a model of {width}"
    return _beside(table, kind, wrapper, weights)


def _own_fields(kind: str) -> set[str]:
    """Fields that we read for a family."""
    found = {FACTORS[kind][0]} if kind in FACTORS else {ROOTS[kind][0]} if kind in ROOTS else set[str]()
    return found | ({"word_embed_proj_dim"} if kind in PROJECTED else set())


def _beside(table: TensorInfo, kind: str, wrapper: str | None, weights: Weights) -> str | None:
    """The first tensor outside of layers that is none of those that such a model has behind them or for positions."""
    stem = table.name.removesuffix("weight")
    scope = table.name.removesuffix(".weight").rpartition(".")[0] if wrapper else ""
    norms = set[str]()
    for name, info in weights.tensors.items():
        tail = name.rpartition(".")[2]
        if name == table.name or ELSEWHERE.search(name) or not name.startswith(scope) or is_buffer(info):
            continue
        if is_head(f"{name.removesuffix(tail)}weight") or _KNOWN.fullmatch(name):
            continue
        if name.startswith(stem) and tail in SCALES:
            continue
        module = name.removesuffix(f".{tail}")
        if _FINAL_NORM.fullmatch(name) or (kind.startswith("lfm") and module.endswith("embedding_norm")):
            norms.add(module)
            continue
        if kind in NORMED and module.endswith("word_embeddings_layernorm"):
            continue
        if kind in PROJECTED and module.endswith(("project_in", "project_out")):
            continue
        return module
    return f"two norms, {' and '.join(sorted(norms)[:2])}" if len(norms) > 1 else None
