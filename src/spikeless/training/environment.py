"""Where a run computes: device, versions, threads; what a resume must find again to be bit-identical."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from spikeless.errors import UserError
from spikeless.words import counted

__all__ = ["DECIDES_BITS", "describe_environment", "peak_flops", "resolve_device"]

DECIDES_BITS = ("torch", "device", "device_name", "threads", "machine", "precision")

_PEAK_BF16_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A10": 125e12, "V100": 125e12}


def resolve_device(wanted: str) -> torch.device:
    """The device that "auto", "cpu", "cuda" or "cuda:N" means here.

    Raises:
        UserError: not such a name, or not on this machine.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise UserError(f"no device is called {wanted!r}; use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {wanted!r} is not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {wanted!r} is not on this machine, which has {counted(torch.cuda.device_count(), 'CUDA device')}"
        )
    return device


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 peak of the device [FLOP/s] where it is known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in _PEAK_BF16_FLOPS.items() if known in name), None)


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine and threads, flat."""
    return {
        "spikeless": _version("spikeless"),
        "commit": _commit(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "numpy", "safetensors", "tokenizers")},
        "machine": platform.machine(),
        "system": platform.system(),
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout that the package runs from, if it does."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
