"""Llama with 1.0B parameters and grouped-query attention: the shape of Llama 3.2 1B, 32k vocabulary."""

from spikeless.init import InitConfig
from spikeless.init.normal import NormalInit
from spikeless.models.llama import Llama
from spikeless.optim.adamw import AdamW
from spikeless.optim.schedules.cosine import Cosine
from spikeless.run import CheckpointConfig, DataConfig, EvaluationConfig, RunConfig

__all__ = ["llama_1b"]


def llama_1b() -> RunConfig:
    """Llama with 1.0B parameters and grouped-query attention: the shape of Llama 3.2 1B, 32k vocabulary."""
    return RunConfig(
        recipe="llama_1b",
        steps=40000,
        model=Llama.config(
            num_layers=16,
            width=2048,
            num_heads=32,
            num_kv_heads=8,
            ffn_width=8192,
            vocab_size=32000,
            tied=True,
        ),
        init=InitConfig(scheme=NormalInit()),
        data=DataConfig(tokenizer="bpe:32000", batch_size=512, sequence_length=2048, micro_batches=64),
        optim=AdamW(lr=3e-4),
        schedule=Cosine(warmup_steps=2000),
        checkpoint=CheckpointConfig(every=1000),
        evaluation=EvaluationConfig(every=500),
    )
