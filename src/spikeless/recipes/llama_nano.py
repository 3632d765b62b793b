"""Llama, 4 layers x 128 with grouped-query attention: a run of minutes on a laptop."""

from spikeless.init import InitConfig
from spikeless.init.normal import NormalInit
from spikeless.models.llama import Llama
from spikeless.optim.adamw import AdamW
from spikeless.optim.schedules.cosine import Cosine
from spikeless.run import CheckpointConfig, DataConfig, EvaluationConfig, RunConfig

__all__ = ["llama_nano"]


def llama_nano() -> RunConfig:
    """Llama, 4 layers x 128 with grouped-query attention: a run of minutes on a laptop."""
    return RunConfig(
        recipe="llama_nano",
        steps=500,
        model=Llama.config(num_layers=4, width=128, num_heads=4, num_kv_heads=2, context_length=256, tied=True),
        init=InitConfig(scheme=NormalInit()),
        data=DataConfig(tokenizer="bpe:2048", batch_size=8, sequence_length=256),
        optim=AdamW(lr=1e-3),
        schedule=Cosine(warmup_steps=50),
        checkpoint=CheckpointConfig(every=100),
        evaluation=EvaluationConfig(every=100, tokens=32768),
    )
