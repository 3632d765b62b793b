"""The shape of Llama 2 7B (Touvron et al. 2023)."""

from spikeless.init import InitConfig
from spikeless.init.normal import NormalInit
from spikeless.models.llama import Llama
from spikeless.optim.adamw import AdamW
from spikeless.optim.schedules.cosine import Cosine
from spikeless.run import CheckpointConfig, DataConfig, EvaluationConfig, RunConfig

__all__ = ["llama_7b"]


def llama_7b() -> RunConfig:
    """The shape of Llama 2 7B (Touvron et al. 2023)."""
    return RunConfig(
        recipe="llama_7b",
        steps=140000,
        model=Llama.config(
            num_layers=32, width=4096, num_heads=32, ffn_width=11008, vocab_size=32000, context_length=4096
        ),
        init=InitConfig(scheme=NormalInit()),
        data=DataConfig(tokenizer="bpe:32000", batch_size=1024, sequence_length=4096, micro_batches=128),
        optim=AdamW(lr=3e-4),
        schedule=Cosine(warmup_steps=2000),
        checkpoint=CheckpointConfig(every=1000),
        evaluation=EvaluationConfig(every=500),
    )
