"""How long a step takes, without waiting for the device."""

import time
from collections.abc import Callable

import torch

__all__ = ["StepTimer"]


class StepTimer:
    """Time from the construction to `stop`: a clock on the CPU, events in the stream on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._started, self._began = time.perf_counter(), self._event()

    def stop(self) -> Callable[[], float]:
        """End the interval; the function returned gives its length [s], on a GPU once the step is done there."""
        if self._began is None:
            seconds = time.perf_counter() - self._started
            return lambda: seconds
        began, ended = self._began, self._event()
        assert ended is not None

        def elapsed() -> float:
            ended.synchronize()
            return began.elapsed_time(ended) / 1000

        return elapsed

    def _event(self) -> torch.cuda.Event | None:
        if not self._cuda:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
