"""Everything that a resume needs, as one thing that can be saved and restored."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spikeless.diagnostics import Snapshot
from spikeless.nn.transformer import Transformer
from spikeless.roles import Role, role_of
from spikeless.training.checkpoints import Checkpoint
from spikeless.training.optimizer_state import OptimizerState

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
        self._optimizer_state = OptimizerState(optimizer, self.parameters)
        self._built_lrs = [_number(group.get("lr")) for group in optimizer.param_groups]
        self._default_lr = _number(optimizer.defaults.get("lr"))

    def set_lr(self, lr: float, peak: float) -> None:
        """Give the optimizer's groups a learning rate.

        A group that was built with a rate of its own, neither `peak` nor the optimizer's default, keeps its ratio to
        `peak`.
        """
        usual = (None, peak, self._default_lr)
        for group, built in zip(self.optimizer.param_groups, self._built_lrs, strict=True):
            own = lr if built in usual or not peak else lr * (built / peak)
            if isinstance(group.get("lr"), Tensor):  # some optimizers refuse another object
                group["lr"].fill_(own)
            else:
                group["lr"] = own

    def checkpoint(self) -> Checkpoint:
        """A copy of the state as it is now.

        Raises:
            UserError: the optimizer keeps what cannot be saved.
        """
        kept, rest = self._optimizer_state.save()
        training = {f"optimizer/{path}": tensor for path, tensor in kept.items()}
        training["rng/cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            training["rng/cuda"] = torch.cuda.get_rng_state(self.device)
        model = {
            name: each.detach().to("cpu", copy=True).contiguous() for name, each in self.model.state_dict().items()
        }
        state: dict[str, Any] = {"at_start": dict(self.at_start), "val_loss": self.val_loss}
        state |= {"optimizer": rest} if rest else {}
        return Checkpoint(step=self.step, model=model, training=training, state=state)

    def check_optimizer(self) -> None:
        """Say at once, not at the first checkpoint, that the optimizer's state cannot be saved.

        Raises:
            UserError: naming it.
        """
        self._optimizer_state.save(copy=False)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Become the state that was saved; the checkpoint stays as it is.

        Raises:
            UserError: its optimizer state is not of this optimizer.
        """
        self.model.load_state_dict(checkpoint.model)
        kept = {full.removeprefix("optimizer/"): each for full, each in checkpoint.training.items()}
        for kind in ("cpu", "cuda"):
            if (generator := kept.pop(f"rng/{kind}", None)) is not None:
                self._restore_generator(kind, generator)
        self._optimizer_state.load(kept, checkpoint.state.get("optimizer", {}))
        self.optimizer.zero_grad()
        self.step, self._previous = checkpoint.step, {}
        self.at_start, self.val_loss = dict(checkpoint.state["at_start"]), checkpoint.state["val_loss"]

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
        moments, betas = self._moments()
        return Snapshot(
            embedding=embedding.weight.detach(),
            transform=embedding.multiplier if getattr(embedding, "rescales_only", False) else embedding.transform,
            positions=None if positions is None else positions.detach(),
            parameters=self.parameters,
            moments=moments,
            step=self.step,
            betas=betas,
            group_of=lambda name: role_of(name, Role.OTHER).value,
            micro_batches=micro_batches,
            streams=partial(self._streams, tokens) if tokens else tuple,
            previous=self._previous,
            at_start=self.at_start,
        )

    def _moments(self) -> tuple[dict[str, Mapping[str, Tensor]], tuple[float, float]]:
        """What is kept as Adam keeps it, and its decay rates: those of the first group that has any."""
        found: dict[int, Mapping[str, Tensor]] = {}
        betas: tuple[float, float] | None = None
        for group in self.optimizer.param_groups:
            match group.get("betas"):
                case (int() | float() as first, int() | float() as second) if betas in (None, (first, second)):
                    betas = first, second
                    states = ((each, self.optimizer.state.get(each, {})) for each in group["params"])
                    found |= {id(each): state for each, state in states if _is_adams(state, each)}
        return {name: found[id(each)] for name, each in self.parameters.items() if id(each) in found}, betas or (
            0.0,
            0.0,
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


def _number(lr: float | Tensor | None) -> float | None:
    """A rate that stays as it is when the optimizer's own tensor is filled with another."""
    return float(lr) if isinstance(lr, Tensor) else lr


def _is_adams(state: Mapping[str, Any], parameter: Tensor) -> bool:
    kept = (state.get("exp_avg"), state.get("exp_avg_sq"))
    return all(isinstance(each, Tensor) and each.shape == parameter.shape for each in kept)
