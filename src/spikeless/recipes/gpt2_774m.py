"""GPT-2 774M (Radford et al. 2019; learning rates as for GPT-3, Brown et al. 2020)."""

from spikeless.init import InitConfig
from spikeless.init.gpt2 import GPT2Init
from spikeless.models.gpt2 import GPT2
from spikeless.optim.adamw import AdamW
from spikeless.optim.schedules.cosine import Cosine
from spikeless.run import CheckpointConfig, DataConfig, EvaluationConfig, RunConfig

__all__ = ["gpt2_774m"]


def gpt2_774m() -> RunConfig:
    """GPT-2 774M (Radford et al. 2019; learning rates as for GPT-3, Brown et al. 2020)."""
    return RunConfig(
        recipe="gpt2_774m",
        steps=19000,
        model=GPT2.config(num_layers=36, width=1280, num_heads=20, vocab_size=50257),
        init=InitConfig(scheme=GPT2Init()),
        data=DataConfig(tokenizer="bpe:50257", batch_size=512, sequence_length=1024, micro_batches=32),
        optim=AdamW(lr=2.5e-4),
        schedule=Cosine(warmup_steps=700),
        checkpoint=CheckpointConfig(every=1000),
        evaluation=EvaluationConfig(every=500),
    )
