"""A deep, narrow GPT-2 (48 layers x 48) at an aggressive learning rate: where stability shows on a laptop."""

from spikeless.init import InitConfig
from spikeless.init.small import SmallInit
from spikeless.models.gpt2 import GPT2
from spikeless.optim.adamw import AdamW
from spikeless.optim.schedules.cosine import Cosine
from spikeless.run import CheckpointConfig, DataConfig, EvaluationConfig, RunConfig

__all__ = ["deep_nano"]


def deep_nano() -> RunConfig:
    """A deep, narrow GPT-2 (48 layers x 48) at an aggressive learning rate: where stability shows on a laptop."""
    return RunConfig(
        recipe="deep_nano",
        steps=150,
        precision="fp32",
        model=GPT2.config(num_layers=48, width=48, num_heads=4, context_length=128),
        init=InitConfig(scheme=SmallInit()),
        data=DataConfig(tokenizer="bpe:2048", batch_size=8, sequence_length=128),
        optim=AdamW(lr=1e-2, weight_decay=0.01),
        schedule=Cosine(warmup_steps=10),
        checkpoint=CheckpointConfig(every=50),
        evaluation=EvaluationConfig(every=50, tokens=32768),
    )
