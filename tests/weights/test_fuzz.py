"""Mutated headers and index files: a UserError, or a read that agrees with the safetensors library. 2,400 cases."""

import json
import warnings

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from spikeless.errors import SpikelessWarning, UserError
from spikeless.weights import open_weights

FUZZ = settings(
    max_examples=600,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16), "c": torch.tensor(7)}
VALID = save(TENSORS, metadata={"format": "pt"})
HEADER_BYTES = int.from_bytes(VALID[:8], "little")
HEADER, DATA = json.loads(VALID[8 : 8 + HEADER_BYTES]), VALID[8 + HEADER_BYTES :]
SHARDS = {"one.safetensors": {"a": TENSORS["a"]}, "two.safetensors": {"b": TENSORS["b"], "c": TENSORS["c"]}}
INDEX = {"metadata": {}, "weight_map": {name: shard for shard, each in SHARDS.items() for name in each}}

numbers = st.one_of(
    st.integers(-2, 50), st.sampled_from([2**31, 2**32, 2**62, 2**63, 2**64, -(2**63), 10**30]), st.floats()
)
words = st.one_of(
    st.sampled_from(
        ["F32", "BF16", "I64", "F8_E4M3", "F4", "__metadata__", "../x", "/etc/passwd", "", "a", "b", "\ud800"]
    ),
    st.sampled_from(
        ["one.safetensors", "two.safetensors", "./one.safetensors", "../one.safetensors", "\0.safetensors"]
    ),
    st.text(max_size=8),
)
leaves = st.one_of(st.none(), st.booleans(), numbers, words)
anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=3))


def checked(path, folder=None) -> bool:
    """True if it was read: then the library reads the same from it."""
    try:
        warnings.simplefilter("ignore", SpikelessWarning)  # a shard that the index does not name
        weights = open_weights(path)
        read = {name: weights.read(name) for name in weights.tensors}
        for name, info in weights.tensors.items():
            if len(info.shape) == 2:
                assert sum(len(chunk) for chunk in weights.rows(name, 8)) == (info.shape[0] if info.shape[1] else 0)
    except UserError as error:
        str(error).encode()
        return False
    files = sorted({info.file for info in weights.tensors.values()}) or ([path] if folder is None else [])
    expected = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert read.keys() == expected.keys()
    for name, tensor in expected.items():
        assert read[name].dtype == tensor.dtype
        assert read[name].shape == tensor.shape
        assert torch.equal(read[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))
    return True


@st.composite
def mutated_bytes(draw, valid: bytes, until: int) -> bytes:
    """Some bytes changed, taken out, put in, or the end cut off."""
    raw = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, min(until, len(raw)) - 1)))
        match draw(st.integers(0, 4)):
            case 0 if raw:
                raw[place] = draw(st.integers(0, 255))
            case 1:
                raw[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
            case 2 if raw:
                raw[place] = draw(st.sampled_from(b'0123456789[]{}",:-e.'))
            case 3:
                del raw[draw(st.integers(0, len(raw))) :]
            case 4:
                raw += draw(st.binary(max_size=9))
    return bytes(raw)


@st.composite
def mutated_tree(draw, valid):
    """A value somewhere in a JSON tree replaced, removed, renamed or doubled."""
    tree = json.loads(json.dumps(valid))
    for _ in range(draw(st.integers(1, 3))):
        node = tree
        while isinstance(node, dict | list) and node:
            key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
            inner = node[key]
            if not isinstance(inner, dict | list) or not inner or draw(st.integers(0, 2)) == 0:
                break
            node = inner
        else:
            break
        action = draw(st.integers(0, 3))
        if action == 0:
            del node[key]
        elif action == 1 and isinstance(node, dict):
            node[draw(words)] = node.pop(key)
        elif action == 2 and isinstance(inner, int) and not isinstance(inner, bool):
            node[key] = inner + draw(st.sampled_from([-8, -4, -1, 1, 2, 4, 8]))
        else:
            node[key] = draw(anything)
    return tree


def test_the_valid_ones_are_read(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(VALID)
    assert checked(tmp_path / "model.safetensors")
    assert checked(folder_of(tmp_path / "folder", json.dumps(INDEX).encode()), "folder")


@FUZZ
@given(raw=mutated_bytes(VALID, 8 + HEADER_BYTES))
def test_bytes_of_a_header(tmp_path, raw):
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw)
    checked(path)


@FUZZ
@given(tree=mutated_tree(HEADER), data=st.sampled_from([DATA, DATA + bytes(4), DATA[:-1], b""]))
def test_the_structure_of_a_header(tmp_path, write_header, tree, data):
    checked(write_header(tmp_path / "model.safetensors", tree, data))


@FUZZ
@given(
    length=st.integers(0, 300) | st.integers(0, 2**64 - 1), header=st.sampled_from([VALID[8:], b"{}", b"", b" " * 40])
)
def test_the_length_of_a_header(tmp_path, write_header, length, header):
    checked(write_header(tmp_path / "model.safetensors", header, length=length))


@FUZZ
@given(
    raw=mutated_tree(INDEX).map(lambda tree: json.dumps(tree).encode()) | mutated_bytes(json.dumps(INDEX).encode(), 200)
)
def test_an_index(tmp_path, raw):
    checked(folder_of(tmp_path / "folder", raw), "folder")


def folder_of(folder, index: bytes):
    if not folder.exists():
        folder.mkdir()
        for shard, tensors in SHARDS.items():
            (folder / shard).write_bytes(save(tensors))
    (folder / "model.safetensors.index.json").write_bytes(index)
    return folder


def test_the_mutations_reach_both_outcomes(tmp_path, write_header):
    """Most are refused, and some are read: the cases are near enough to valid to mean something."""
    outcomes = []

    @settings(FUZZ, max_examples=150)
    @given(tree=mutated_tree(HEADER))
    def collect(tree):
        outcomes.append(checked(write_header(tmp_path / "model.safetensors", tree, DATA)))

    collect()
    assert 0 < sum(outcomes) < len(outcomes) / 2
