"""A 13B shape after Spike No More (arXiv 2312.16903), from its Vanilla initialisation."""

from spikeless.init import InitConfig
from spikeless.init.small import SmallInit
from spikeless.models.gpt2 import GPT2
from spikeless.optim.adamw import AdamW
from spikeless.optim.schedules.cosine import Cosine
from spikeless.run import CheckpointConfig, DataConfig, EvaluationConfig, RunConfig

__all__ = ["spike_no_more_13b"]


def spike_no_more_13b() -> RunConfig:
    """A 13B shape after Spike No More (arXiv 2312.16903), from its Vanilla initialisation."""
    return RunConfig(
        recipe="spike_no_more_13b",
        steps=100000,
        model=GPT2.config(num_layers=40, width=5120, num_heads=40, vocab_size=50257, context_length=2048),
        init=InitConfig(scheme=SmallInit()),
        data=DataConfig(tokenizer="bpe:50257", batch_size=512, sequence_length=2048, micro_batches=64),
        optim=AdamW(lr=3e-4, beta2=0.95),
        schedule=Cosine(warmup_steps=2000),
        checkpoint=CheckpointConfig(every=1000),
        evaluation=EvaluationConfig(every=500),
    )
