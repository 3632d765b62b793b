"""A causal language model behind one call: token ids in, logits out, whatever the module's own signature."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves

from spikeless.errors import UserError

__all__ = ["LanguageModel", "ProbeError"]

PROBE_TOKENS = 8
LEAK = 1e-4  # of the largest logit; a causal model computes the same numbers twice, experts but nearly


class ProbeError(RuntimeError):
    """A fault of ours inside the model's call, which is not to be told as the model's."""


class LanguageModel:
    """A module that gives next-token logits at every position.

    It is called with token ids alone; where that gives the last position's logits only (nanoGPT), the ids are given
    as targets too.

    Args:
        model: the module; evaluation mode while it is used here.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        try:
            self._accepted = list(inspect.signature(model.forward).parameters)
        except (TypeError, ValueError):
            self._accepted = []
        self._keywords: dict[str, Any] = {"use_cache": False} if "use_cache" in self._accepted else {}
        self._with_targets = False
        self._probe: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def logits(self, ids: Tensor) -> Tensor:
        """[B, T] -> [B, T, V].

        Raises:
            UserError: the module does not compute logits of every position from ids alone.
        """
        found = self._find(self._call(ids), ids)
        if found is None and not self._with_targets and len(self._accepted) > 1:
            self._with_targets = True
            try:
                found = self._find(self._call(ids), ids)
            except (TypeError, UserError):
                found = None
        if found is None:
            name = type(self.model).__name__
            raise UserError(
                f"{name} is not a causal language model: from token ids [B, T] it gives no logits [B, T, V]; "
                "give a module whose forward(ids) returns them, alone, first in a tuple, or as .logits"
            )
        return found

    def probe_ids(self) -> Tensor:
        """A few different token ids [1, T] that the model takes: 8, or fewer for a shorter context or vocabulary.

        Raises:
            UserError: it takes none.
        """
        if self._probe is None:
            with torch.no_grad(), self.evaluating():
                vocab_size = self.logits(torch.zeros(1, 2, dtype=torch.long, device=self.device)).shape[-1]
                self._probe = torch.arange(PROBE_TOKENS, device=self.device)[None] % vocab_size
                try:
                    self.logits(self._probe)
                except UserError:
                    self._probe = self._probe[:, :2]
        return self._probe

    def check_causal(self, vocab_size: int) -> None:
        """Make sure that later tokens do not change earlier logits.

        Raises:
            UserError: they do.
        """
        ids = self.probe_ids()
        other = ids.clone()
        other[0, -1] = (other[0, -1] + 1) % vocab_size
        with torch.no_grad(), self.evaluating():
            before, after = self.logits(ids)[:, :-1], self.logits(other)[:, :-1]
        finite = before.isfinite() & after.isfinite()
        scale = before[finite].abs().max() if finite.any() else torch.ones(())
        if finite.any() and (before - after)[finite].abs().max() > LEAK * scale:
            raise UserError(
                f"{type(self.model).__name__} is not a causal language model: its logits change with later tokens; "
                "an encoder, or a causal mask that is missing?"
            )

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode, so no dropout; put back afterwards."""
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Evaluation mode, no gradients of parameters, attention in plain math; all put back afterwards."""
        asked = [(parameter, parameter.requires_grad) for parameter in self.model.parameters()]
        for parameter, _ in asked:
            parameter.requires_grad_(False)
        try:
            with self.evaluating(), sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            for parameter, wanted in asked:
                parameter.requires_grad_(wanted)

    def _call(self, ids: Tensor) -> Any:
        given = (ids, ids) if self._with_targets else (ids,)
        try:
            return self.model(*given, **self._keywords)
        except (UserError, ProbeError):
            raise
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"{type(self.model).__name__} cannot be called with token ids {list(ids.shape)}: {reason}; "
                "a causal language model is needed, whose forward takes token ids [B, T] and nothing else"
            ) from error

    @staticmethod
    def _find(result: Any, ids: Tensor) -> Tensor | None:
        for each in tree_leaves(result):
            if isinstance(each, Tensor) and each.is_floating_point() and each.dim() == 3:
                return each if each.shape[:2] == ids.shape else None
        return None
