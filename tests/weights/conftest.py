import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file


@pytest.fixture
def tensors():
    """One tensor of every shape and a few types that matter."""
    return {
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 3),
        "matrix": torch.randn(7, 5),
        "half": torch.randn(3, 4).bfloat16(),
        "flags": torch.tensor([True, False, True]),
        "eighth": torch.randn(2, 6).to(torch.float8_e4m3fn),
        "cube": torch.arange(24.0, dtype=torch.float64).reshape(2, 3, 4),
    }


@pytest.fixture
def file(tmp_path, tensors):
    """All of them in one valid file."""
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def write(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    """A file with any header: JSON if it is not bytes, of its own length if none is claimed."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


@pytest.fixture
def sharded(tmp_path):
    """A folder with two shards and their index."""
    folder = tmp_path / "sharded"
    folder.mkdir()
    first, second = {"a": torch.randn(4, 3)}, {"b": torch.randn(5), "c": torch.zeros(2, 2)}
    save_file(first, folder / "model-00001-of-00002.safetensors")
    save_file(second, folder / "model-00002-of-00002.safetensors")
    names = dict.fromkeys(first, "model-00001-of-00002.safetensors")
    names |= dict.fromkeys(second, "model-00002-of-00002.safetensors")
    write_index(folder, names)
    return folder


def write_index(folder: Path, weight_map: object) -> None:
    index = {"metadata": {"total_size": 84}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture
def write_header():
    return write


@pytest.fixture
def rewrite_index():
    return write_index
