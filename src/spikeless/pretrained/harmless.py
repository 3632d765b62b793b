"""Fields of any family's config.json that do not change what the model computes from token ids."""

import re
from typing import Any

__all__ = ["is_harmless", "own_code"]

_FIELDS = {
    "where it comes from": """
        _name_or_path name_or_path name model_name model_id architectures transformers_version _commit_hash revision
        version library_name pipeline_tag license language languages tags author description datasets base_model
        base_model_name_or_path unsloth_version unsloth_fixed unsloth_training_args transformers.js_config trl_version
        axolotl_version axolotl_config peft_version peft_type mergekit_version merge_method llamafactory_version
        nanotron_version nemo_version megatron_version custom_pipelines _from_auto _auto_class training_args
        training_config train_config run_name wandb_run_id finetuned_from total_tokens train_tokens tokens_seen
        created_at date paper
    """,
    "how it is stored": """
        torch_dtype dtype params_dtype param_dtype compute_dtype torchscript use_bfloat16 bf16 fp16 fp32
        quantization_version original_dtype make_vocab_size_divisible_by pad_vocab_size_multiple_of pad_to_multiple_of
        original_vocab_size orig_vocab_size
    """,
    "how it is run": """
        use_cache return_dict use_return_dict output_attentions output_hidden_states output_past output_router_logits
        keys_to_ignore_at_inference attn_implementation _attn_implementation _attn_implementation_autoset attn_impl
        _attn_implementation_internal _experts_implementation_internal experts_implementation use_flash_attn
        use_flash_attention use_flash_attention_2 use_flash_attn_2 _flash_attn_2_enabled flash_attention use_sdpa
        use_xformers use_memory_efficient_attention use_fused_rms_norm use_fused_mlp use_fused_cross_entropy
        fused_rms_norm fused_swiglu use_triton use_kernels use_cuda_graph chunk_size_feed_forward tf_legacy_loss
        attention_softmax_in_fp32 scale_attention_softmax_in_fp32 tie_last_hidden_states is_decoder distributed_config
        tp_size ep_size world_size tensor_parallel_size pipeline_parallel_size max_batch_size
    """,
    "how it was trained": """
        initializer_range initializer_factor init_std init_method init_device initializer gradient_checkpointing
        use_gradient_checkpointing gradient_checkpointing_kwargs use_reentrant neftune_noise_alpha label_smoothing
        layerdrop dropout attention_dropout hidden_dropout resid_pdrop embd_pdrop attn_pdrop embed_pdrop resid_dropout
        embedding_dropout ffn_dropout mlp_dropout attention_probs_dropout_prob hidden_dropout_prob classifier_dropout
        rope_dropout loss_type z_loss_weight z_loss_coefficient lm_loss_weight router_aux_loss_coef use_liger_kernel
        use_liger seed learning_rate weight_decay num_train_epochs max_seq_length max_seq_len max_sequence_length
        seq_length seq_len sequence_length model_max_length tokenizer_model_max_length train_seq_len block_size
        lora_r lora_alpha lora_dropout
    """,
    "other heads": """
        id2label label2id num_labels _num_labels problem_type finetuning_task task_specific_params prefix
        predict_special_tokens summary_type summary_use_proj summary_activation summary_proj_to_labels
        summary_first_dropout cross_attention_hidden_size pooling_type sentence_transformers
    """,
    "tokens": """
        bos_token_id eos_token_id pad_token_id sep_token_id unk_token_id cls_token_id mask_token_id eod_token_id
        eot_token_id decoder_start_token_id bos_token eos_token pad_token unk_token sep_token tokenizer_class
        tokenizer_name tokenizer_path tokenizer_type chat_template image_token_id image_token_index
        additional_special_tokens padding_side ignore_index
    """,
    "generation, which older versions keep here": """
        max_length max_new_tokens min_length min_new_tokens early_stopping max_time stop_strings do_sample num_beams
        num_beam_groups cache_implementation cache_config temperature top_k top_p min_p typical_p epsilon_cutoff
        eta_cutoff diversity_penalty repetition_penalty encoder_repetition_penalty length_penalty no_repeat_ngram_size
        encoder_no_repeat_ngram_size bad_words_ids force_words_ids renormalize_logits constraints forced_bos_token_id
        forced_eos_token_id remove_invalid_values exponential_decay_length_penalty suppress_tokens
        begin_suppress_tokens sequence_bias guidance_scale num_return_sequences output_scores output_logits
        return_dict_in_generate generation_config penalty_alpha max_context_length stop_token_ids
    """,
}
_HARMLESS = frozenset(name for names in _FIELDS.values() for name in names.split())
_FACTORS = """
    embedding_multiplier embedding_scale embedding_multiplier_scale scale_emb mup_embeddings_scale residual_multiplier
    residual_scale logits_scaling logits_scale logit_scale logits_multiplier lm_head_multiplier output_multiplier
    rope_ratio rope_factor rope_scaling_factor scaling_factor partial_rotary_factor rotary_pct rotary_percent
"""
_SWITCHED_ON = "is_causal causal use_causal_mask causal_attention scale_attn_weights pre_norm prenorm"
_OFF: tuple[Any, ...] = (None, False, 0, "", [], {})


def is_harmless(name: str, value: Any) -> bool:
    """Whether a field may be passed over: it never changes the function, or has the value that does not.

    Null, false, 0 and empty are off, but for factors, which are off at 1, and what every model has switched on.
    """
    if name in _HARMLESS or value is None:
        return True
    if name in _FACTORS.split() or name in _SWITCHED_ON.split():
        return value == 1  # as True is
    return value in _OFF


def own_code(auto_map: Any, model_type: str) -> str | None:
    """A model class of the folder's own code that does not go by the family's name, as copies of the family's do.

    Such code is never run, so what it computes is not known.
    """
    family = re.sub(r"\W|_", "", model_type.lower())
    for role, target in auto_map.items() if isinstance(auto_map, dict) else ():
        name = str(target).rpartition(".")[2]
        if role.startswith("AutoModel") and not name.lower().startswith(family):
            return name
    return None
