"""Views of small models' blocks, whose tensors can be differentiated."""

from collections.abc import Callable

import pytest
import torch

from spikeless.diagnostics.anatomy import Anatomy, BlockView, dissect
from spikeless.diagnostics.anatomy.language_model import LanguageModel


@pytest.fixture(scope="session")
def views_of() -> Callable[..., tuple[Anatomy, list[BlockView]]]:
    """A model's anatomy, and differentiable views of its blocks at some random tokens: `views_of(model, tokens)`."""

    def make(model: torch.nn.Module, tokens: int = 12) -> tuple[Anatomy, list[BlockView]]:
        lm = LanguageModel(model)
        anatomy = dissect(lm)
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(anatomy.vocab_size, (1, max(12, tokens)), generator=generator)[:, :tokens]
        with lm.quiet(), torch.enable_grad():
            calls = anatomy.calls(ids)
            return anatomy, [
                anatomy.view(index, call, call.stream.detach().requires_grad_()) for index, call in enumerate(calls)
            ]

    return make
