"""Llama with 162M parameters: 12 layers x 768."""

from spikeless.init import InitConfig
from spikeless.init.normal import NormalInit
from spikeless.models.llama import Llama
from spikeless.optim.adamw import AdamW
from spikeless.optim.schedules.cosine import Cosine
from spikeless.run import CheckpointConfig, DataConfig, EvaluationConfig, RunConfig

__all__ = ["llama_160m"]


def llama_160m() -> RunConfig:
    """Llama with 162M parameters: 12 layers x 768."""
    return RunConfig(
        recipe="llama_160m",
        steps=19000,
        model=Llama.config(num_layers=12, width=768, num_heads=12, ffn_width=3072, vocab_size=32000),
        init=InitConfig(scheme=NormalInit()),
        data=DataConfig(tokenizer="bpe:32000", batch_size=256, sequence_length=2048, micro_batches=32),
        optim=AdamW(lr=6e-4),
        schedule=Cosine(warmup_steps=700),
        checkpoint=CheckpointConfig(every=1000),
        evaluation=EvaluationConfig(every=500),
    )
