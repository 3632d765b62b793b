import json

import pytest
from safetensors.torch import save_file

from spikeless.evaluation.tev import EmbeddingVariability, find_sources, measure


@pytest.fixture
def read():
    """TEV of the one checkpoint that a path stands for."""

    def one(path, tensor=None) -> EmbeddingVariability:
        (source,) = find_sources(str(path))
        return measure(source, tensor)

    return one


@pytest.fixture
def folder(tmp_path):
    """Makes a Hugging Face folder of some tensors and a configuration."""

    def make(tensors, config=None, name="model", tokenizer=None):
        path = tmp_path / name
        path.mkdir()
        save_file(tensors, path / "model.safetensors")
        if config is not None:
            (path / "config.json").write_text(json.dumps(config))
        if tokenizer is not None:
            (path / "tokenizer.json").write_text(json.dumps(tokenizer))
        return path

    return make
