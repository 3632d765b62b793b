"""spikeless: language-model pre-training that does not blow up."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikeless import recipes as recipes
    from spikeless.errors import UnhealthyRun as UnhealthyRun
    from spikeless.errors import UserError as UserError
    from spikeless.experiments.compare import compare as compare
    from spikeless.preflight.audit import audit as audit
    from spikeless.run import RunConfig as RunConfig
    from spikeless.training.loop import train as train

_HOMES = {
    "RunConfig": "run",
    "UnhealthyRun": "errors",
    "UserError": "errors",
    "audit": "preflight.audit",
    "compare": "experiments.compare",
    "train": "training.loop",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: torch is needed by few and takes seconds."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"spikeless.{_HOMES[name]}"), name)
    try:
        return importlib.import_module(f"spikeless.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"spikeless.{name}":
            raise
        raise AttributeError(f"module 'spikeless' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted([*_HOMES, "recipes"])
