"""A place in which a model is measured: nothing that the caller has switched on gets in, and nothing gets out."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

__all__ = ["undisturbed"]

SMALL_ELEMENTS = 1 << 20  # of its largest matrix


@contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Gradients on, no autocast, no inference mode; random generators, threads and buffers are put back afterwards."""
    device = next((p.device.type for p in model.parameters()), "cpu")
    with ExitStack() as stack:
        for each in (torch.inference_mode(False), torch.enable_grad(), _few_threads(model), _buffers_kept(model)):
            stack.enter_context(each)
        if device in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []))
        yield


@contextmanager
def _buffers_kept(model: torch.nn.Module) -> Iterator[None]:
    """Counters, running averages and the like are put back."""
    saved = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in saved:
                buffer.copy_(value)


@contextmanager
def _few_threads(model: torch.nn.Module) -> Iterator[None]:
    """One thread for a small model: its operations are too short to share, and waiting threads steal time."""
    before = torch.get_num_threads()
    if max((p.numel() for p in model.parameters()), default=0) < SMALL_ELEMENTS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
