"""Everything that a resume needs, as one thing that can be saved and restored."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spikeless.diagnostics import Snapshot
from spikeless.nn.transformer import Transformer
from spikeless.roles import role_of
from spikeless.training.checkpoints import Checkpoint

__all__ = ["TrainState"]


class TrainState:
    """Model, optimizer, step, random generators and what later readings refer to.

    Sampling needs no state besides the step: see `data.sampling`. `val_loss` is that of this very step, or None:
    only a checkpoint that was evaluated can be the best.
    """

    def __init__(self, model: Transformer, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.model, self.optimizer, self.device = model, optimizer, device
        self.parameters: dict[str, torch.nn.Parameter] = dict(model.named_parameters())
        self.step = 0
        self.at_start: dict[str, float] = {}
        self.val_loss: float | None = None
        self._previous: dict[str, Tensor] = {}

    def checkpoint(self) -> Checkpoint:
        """The state as it is now."""
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.parameters.items()}
        training = {
            f"optimizer/{names[parameter]}/{key}": value
            for parameter, state in self.optimizer.state.items()
            for key, value in state.items()
            if isinstance(value, Tensor)
        }
        training["rng/cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            training["rng/cuda"] = torch.cuda.get_rng_state(self.device)
        state: dict[str, Any] = {"at_start": self.at_start, "val_loss": self.val_loss}
        return Checkpoint(step=self.step, model=dict(self.model.state_dict()), training=training, state=state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Become the state that was saved."""
        self.model.load_state_dict(checkpoint.model)
        for full, tensor in checkpoint.training.items():
            kind, _, rest = full.partition("/")
            if kind == "rng":
                self._restore_generator(rest, tensor)
                continue
            name, _, key = rest.rpartition("/")
            parameter = self.parameters[name]
            self.optimizer.state[parameter][key] = tensor.to(parameter.device)
        self.step = checkpoint.step
        self.at_start, self.val_loss = checkpoint.state["at_start"], checkpoint.state["val_loss"]

    def _restore_generator(self, where: str, tensor: Tensor) -> None:
        if where == "cpu":
            torch.set_rng_state(tensor)
        elif self.device.type == "cuda":
            torch.cuda.set_rng_state(tensor, self.device)

    def is_finite(self) -> bool:
        """True if every parameter is; waits for the device."""
        parameters = [each.detach() for each in self.parameters.values()]
        norms = torch.stack(torch._foreach_norm(parameters))
        suspects = [each for each, fine in zip(parameters, norms.isfinite().tolist(), strict=True) if not fine]
        return all(bool(each.isfinite().all()) for each in suspects)  # a norm can overflow although every entry is fine

    def snapshot(
        self, sequence_length: int, micro_batches: tuple = (), tokens: Callable[[], Tensor] | None = None
    ) -> Snapshot:
        """What the diagnostics may look at; `tokens` gives those [B, T] of one micro-batch."""
        embedding = self.model.embedding
        positions = self.model.positions.vectors(torch.arange(sequence_length, device=self.device))
        group = self.optimizer.param_groups[0]
        return Snapshot(
            embedding=embedding.weight.detach(),
            transform=embedding.multiplier if embedding.rescales_only else embedding.transform,
            positions=None if positions is None else positions.detach(),
            parameters=self.parameters,
            moments={name: self.optimizer.state[p] for name, p in self.parameters.items() if p in self.optimizer.state},
            step=self.step,
            betas=group["betas"],
            group_of=lambda name: role_of(name).value,
            micro_batches=micro_batches,
            streams=partial(self._streams, tokens) if tokens else tuple,
            previous=self._previous,
            at_start=self.at_start,
        )

    def keep_previous(self) -> None:
        """Copy the parameters, for the diagnostics that compare them with those after the step."""
        self._previous = {name: each.detach().clone() for name, each in self.parameters.items()}

    def forget_previous(self) -> None:
        """Let the copy go."""
        self._previous = {}

    def _streams(self, tokens: Callable[[], Tensor]) -> Iterator[Tensor]:
        with torch.no_grad():
            yield from self.model.streams(tokens().to(self.device))
