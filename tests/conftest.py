"""Tests run offline, with a cache of their own, and with the shapes in signatures checked."""

import os
import warnings
from collections.abc import Callable

import pytest
from jaxtyping import install_import_hook

os.environ["HF_HUB_OFFLINE"] = "1"

# Modules imported from here on have the shapes in their signatures checked. The slots' protocols cannot be
# checked at run time: what names one in its signature is left as it is.
install_import_hook(
    ["spikeless.nn", "spikeless.losses"],
    "beartype.beartype(conf=beartype.BeartypeConf("
    "warning_cls_on_decorator_exception=PendingDeprecationWarning, is_pep484_tower=True))",
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore", PendingDeprecationWarning)
    import torch

    from spikeless.config import find, replace_at
    from spikeless.init import initialise
    from spikeless.nn.transformer import Transformer
    from spikeless.run import RunConfig
    from spikeless.stabilizers import apply


def pytest_configure(config: pytest.Config) -> None:
    """A warning of ours fails a test; in pyproject.toml this would import the package before the hook stands."""
    config.addinivalue_line("filterwarnings", "error::spikeless.errors.SpikelessWarning")


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory):
    """No test reads or writes the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("spikeless-cache")
        patch.setenv("SPIKELESS_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_run() -> Callable[..., RunConfig]:
    """Makes a run of a family whose model is built in milliseconds: `tiny_run("gpt2", "mlra", width=64)`."""

    def make(family: str = "gpt2", *techniques: str, scheme: object = None, **model: object) -> RunConfig:
        run = find("recipes", f"{family}_nano")()
        sizes = {"num_layers": 2, "width": 32, "num_heads": 4, "vocab_size": 97, "context_length": 32} | model
        run = replace_at(run, {f"model.{name}": value for name, value in sizes.items()})
        run = replace_at(run, {"data.sequence_length": run.model.context_length, "steps": 20})
        return apply(replace_at(run, {"init.scheme": scheme}) if scheme else run, techniques)

    return make


@pytest.fixture(scope="session")
def build() -> Callable[..., Transformer]:
    """Builds a run's model and draws its weights."""

    def make(run: RunConfig, seed: int = 0) -> Transformer:
        model = Transformer(run.model)
        initialise(model, run.init, seed, width=run.model.width, num_layers=run.model.num_layers)
        return model

    return make


@pytest.fixture(autouse=True)
def _seeded():
    """Every test draws the same random numbers, whatever ran before it."""
    torch.manual_seed(0)
