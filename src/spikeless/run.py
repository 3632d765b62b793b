"""The whole run as one immutable tree."""

from dataclasses import dataclass
from typing import Literal

from spikeless.config import find, names_in, slot
from spikeless.errors import UserError
from spikeless.init import InitConfig
from spikeless.losses.cross_entropy import CrossEntropy
from spikeless.nn.boundaries import Boundaries, Joined
from spikeless.nn.transformer import ModelConfig
from spikeless.optim.adamw import AdamW, Optimizer
from spikeless.optim.gradients import GradientTransform
from spikeless.optim.gradients.clip_norm import ClipNorm
from spikeless.optim.schedules import Schedule
from spikeless.optim.schedules.cosine import Cosine

__all__ = ["CheckpointConfig", "DataConfig", "EvaluationConfig", "MetricsConfig", "Precision", "RunConfig"]

Precision = Literal["fp32", "bf16", "auto"]


def _positive(config: object, prefix: str, *names: str, least: int = 1) -> None:
    for name in names:
        if getattr(config, name) < least:
            raise UserError(f"{prefix}{name}={getattr(config, name)} is out of range; use a whole number from {least}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is read, and how much of it a step takes.

    Attributes:
        spec: the corpus, `NAME[:REST][,key=value]`.
        tokenizer: `bpe:N` or `bytes`.
        batch_size: sequences a step [sequences].
        sequence_length: [tokens].
        micro_batches: parts in which a step's batch is computed, to save memory.
        validation_fraction: share of the documents held out, where the corpus brings no split.
        boundaries: what documents in one window see of each other.
    """

    spec: str = "pydocs"
    tokenizer: str = "bpe:2048"
    batch_size: int = 8
    sequence_length: int = 128
    micro_batches: int = 1
    validation_fraction: float = 0.04
    boundaries: Boundaries = slot(Joined(), room="nn.boundaries")

    def __post_init__(self) -> None:
        _positive(self, "data.", "batch_size", "sequence_length", "micro_batches")
        if not 0 < self.validation_fraction < 1:
            raise UserError(f"data.validation_fraction={self.validation_fraction} is out of range; use 0 to 1")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the run is saved, and what is kept.

    Attributes:
        every: a checkpoint every so many steps, and at the end; 0 means at the end only.
        keep_last: newest checkpoints kept.
        keep_best: checkpoints with the lowest validation loss kept besides.
    """

    every: int = 100
    keep_last: int = 2
    keep_best: int = 1

    def __post_init__(self) -> None:
        _positive(self, "checkpoint.", "every", "keep_best", least=0)
        _positive(self, "checkpoint.", "keep_last")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """When the validation loss is measured, and on how much.

    Attributes:
        every: every so many steps, at the start and at the end; 0 means at both ends only.
        tokens: at most so many validation tokens.
    """

    every: int = 100
    tokens: int = 65_536

    def __post_init__(self) -> None:
        _positive(self, "evaluation.", "every", least=0)
        _positive(self, "evaluation.", "tokens")


@dataclass(frozen=True, kw_only=True)
class MetricsConfig:
    """Which diagnostics are read, and how often.

    Attributes:
        every: diagnostics every so many steps; 0 turns them off. Loss and gradient norm come every step.
        diagnostics: files in `diagnostics/`.
        loggers: files in `loggers/`; the JSON lines are always written.
    """

    every: int = 10
    diagnostics: tuple[str, ...] = ("tev", "gradient_variance_free")
    loggers: tuple[str, ...] = ("tensorboard",)

    def __post_init__(self) -> None:
        _positive(self, "metrics.", "every", least=0)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides what a run computes.

    Attributes:
        recipe: the recipe it came from.
        techniques: what was applied to it, for the record; the effect stands in the other fields.
        steps: optimizer steps.
        seed: of weights and sampling.
        precision: type of matrix products; "auto" measures a step of each and takes the faster.
        device: "cpu", "cuda", "cuda:N", or "auto".
        compile: use torch.compile.
        init_from: the Hugging Face folder whose weights the run begins with, instead of drawing them.
    """

    recipe: str
    techniques: tuple[str, ...] = ()
    steps: int
    seed: int = 0
    precision: Precision = "auto"
    device: str = "auto"
    compile: bool = False
    init_from: str | None = None
    model: ModelConfig
    init: InitConfig = InitConfig()
    data: DataConfig = DataConfig()
    loss: CrossEntropy = CrossEntropy()
    optim: Optimizer = slot(AdamW(), room="optim.adamw")
    schedule: Schedule = slot(Cosine(), room="optim.schedules")
    gradients: tuple[GradientTransform, ...] = slot((ClipNorm(),), room="optim.gradients")
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    metrics: MetricsConfig = MetricsConfig()

    def __post_init__(self) -> None:
        _positive(self, "", "steps")
        if not -(1 << 63) <= self.seed < 1 << 63:
            raise UserError(f"seed={self.seed} is out of range; use a whole number below 2^63")

    def check(self) -> None:
        """Refuse what no single field can see.

        Raises:
            UserError: what is wrong and what would be right.
        """
        self.model.check()
        if self.data.batch_size % self.data.micro_batches:
            raise UserError(
                f"data.batch_size={self.data.batch_size} is not divisible by "
                f"data.micro_batches={self.data.micro_batches}; set one of the two"
            )
        for room, names in (("diagnostics", self.metrics.diagnostics), ("loggers", self.metrics.loggers)):
            for name in names:
                if name not in names_in(room):
                    find(room, name)  # says which are near; nothing is imported for a name that is known
        if self.data.sequence_length > self.model.context_length:
            raise UserError(
                f"data.sequence_length={self.data.sequence_length} is longer than "
                f"model.context_length={self.model.context_length}; set one of the two"
            )
