"""GPT-2, 4 layers x 128: a run of minutes on a laptop."""

from spikeless.init import InitConfig
from spikeless.init.gpt2 import GPT2Init
from spikeless.models.gpt2 import GPT2
from spikeless.optim.adamw import AdamW
from spikeless.optim.schedules.cosine import Cosine
from spikeless.run import CheckpointConfig, DataConfig, EvaluationConfig, RunConfig

__all__ = ["gpt2_nano"]


def gpt2_nano() -> RunConfig:
    """GPT-2, 4 layers x 128: a run of minutes on a laptop."""
    return RunConfig(
        recipe="gpt2_nano",
        steps=500,
        model=GPT2.config(num_layers=4, width=128, num_heads=4, context_length=256),
        init=InitConfig(scheme=GPT2Init()),
        data=DataConfig(tokenizer="bpe:2048", batch_size=8, sequence_length=256),
        optim=AdamW(lr=1e-3),
        schedule=Cosine(warmup_steps=50),
        checkpoint=CheckpointConfig(every=100),
        evaluation=EvaluationConfig(every=100, tokens=32768),
    )
