"""One file: what is valid is read as the safetensors library reads it, what is not is refused with the reason."""

import os
import tracemalloc

import pytest
import torch
from safetensors.torch import load_file, save_file

from spikeless.errors import UserError
from spikeless.weights import open_weights


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Bit for bit."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def test_a_file_is_read_as_the_library_reads_it(file, tensors):
    weights, expected = open_weights(file), load_file(file)
    assert set(weights.tensors) == set(expected) == set(tensors)
    assert weights.metadata == {"format": "pt"}
    for name, tensor in expected.items():
        assert same(weights.read(name), tensor), name
        assert weights.tensors[name].shape == tuple(tensor.shape)


@pytest.mark.parametrize("dtype", [torch.float8_e5m2, torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_type(tmp_path, dtype):
    table = torch.randn(9, 4).to(dtype)
    save_file({"a": table}, tmp_path / "a.safetensors")
    assert same(open_weights(tmp_path / "a.safetensors").read("a"), table)


@pytest.mark.parametrize("buffer_bytes", [1, 20, 45, 60, 1 << 20])
def test_rows_come_in_chunks_of_one_buffer(file, tensors, buffer_bytes):
    chunks, places = [], set()
    for chunk in open_weights(file).rows("matrix", buffer_bytes):
        assert chunk.numel() * 4 <= max(buffer_bytes, 20)
        chunks.append(chunk.clone())
        places.add(chunk.data_ptr())
    assert torch.equal(torch.cat(chunks), tensors["matrix"])
    assert len(places) == 1


@pytest.mark.parametrize(("first", "last"), [(0, 7), (2, 5), (6, 7), (3, 3), (5, 99), (7, None), (1, None)])
def test_some_rows(file, tensors, first, last):
    chunks = [chunk.clone() for chunk in open_weights(file).rows("matrix", 40, first=first, last=last)]
    assert torch.equal(torch.cat([torch.empty(0, 5), *chunks]), tensors["matrix"][first:last])


def test_rows_of_a_table_without_rows(file):
    assert list(open_weights(file).rows("empty")) == []


def test_what_is_read_is_ones_own(file, tensors):
    weights = open_weights(file)
    weights.read("matrix").zero_()
    assert torch.equal(weights.read("matrix"), tensors["matrix"])


def test_a_tensor_that_is_not_there(file):
    with pytest.raises(UserError, match="has no tensor 'matrxi'; did you mean 'matrix'"):
        open_weights(file).read("matrxi")


def test_rows_of_what_is_no_matrix(file):
    with pytest.raises(UserError, match=r"'cube' has the shape \[2, 3, 4\]; expected a matrix"):
        next(open_weights(file).rows("cube"))


def test_a_file_that_becomes_shorter_while_it_is_read(file):
    weights = open_weights(file)
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(UserError, match="became shorter"):
        [weights.read(name) for name in weights.tensors]


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HUGE = 1 << 62
MALFORMED = {
    "no JSON": (b"{nope", "not valid JSON"),
    "invalid UTF-8": (b'{"\xff": 1}', "not valid JSON"),
    "a list": ([], "expected a JSON object"),
    "nothing": (b"", "not valid JSON"),
    "a key twice": (b'{"a": 1, "a": 2}', "'a' appears twice"),
    "too deep": (b"[" * 100_000, "nested too deeply"),
    "a number of many digits": (b'{"a": ' + b"9" * 10_000 + b"}", "not valid JSON"),
    "metadata that is no text": ({"__metadata__": {"a": 1}}, "__metadata__"),
    "metadata that is a list": ({"__metadata__": []}, "__metadata__"),
    "a tensor that is no object": ({"a": 3}, "'a': expected an object"),
    "no dtype": ({"a": {"shape": [2], "data_offsets": [0, 8]}}, "expected an object with dtype"),
    "unknown dtype": ({"a": entry(dtype="F31")}, "unknown dtype 'F31'; did you mean"),
    "dtype that is no text": ({"a": entry(dtype=["F32"])}, "unknown dtype"),
    "negative size": ({"a": entry(shape=[-2])}, "its shape must be"),
    "fractional size": ({"a": entry(shape=[2.0])}, "its shape must be"),
    "true for a size": ({"a": entry(shape=[True, 2])}, "its shape must be"),
    "a nested shape": ({"a": entry(shape=[[2]])}, "its shape must be"),
    "negative offset": ({"a": entry(offsets=[-8, 0])}, "data_offsets must be"),
    "three offsets": ({"a": entry(offsets=[0, 4, 8])}, "data_offsets must be"),
    "end before begin": ({"a": entry(offsets=[8, 0])}, "data_offsets must be"),
    "fractional offset": ({"a": entry(offsets=[0, 8.0])}, "data_offsets must be"),
    "bytes unlike the shape": ({"a": entry(shape=[3])}, "does not take the 8 bytes"),
    "a size that overflows 64 bits": ({"a": entry(shape=[HUGE, 8])}, "more elements than any file"),
    "overflow hidden by a zero": ({"a": entry(shape=[HUGE, 8, 0], offsets=[0, 0])}, "more elements than any file"),
    "bytes beyond the file": ({"a": entry(shape=[4], offsets=[0, 16])}, "truncated or damaged"),
    "overlap": ({"a": entry(), "b": entry(shape=[1], offsets=[4, 8])}, "'b' overlaps"),
    "the same bytes twice": ({"a": entry(), "b": entry()}, "'b' overlaps"),
    "a hole": ({"a": entry(shape=[1], offsets=[4, 8])}, "leaves a hole"),
    "bytes of nobody": ({"a": entry(shape=[1], offsets=[0, 4])}, "4 bytes after the last tensor"),
    "a name with an escape sequence": ({"\x1b[2Ja": entry()}, "cannot be shown"),
    "a name with half a character": ({"\ud800": entry()}, "cannot be shown"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_header_that_contradicts_itself_or_the_file(tmp_path, write_header, case):
    header, message = MALFORMED[case]
    path = write_header(tmp_path / "bad.safetensors", header, bytes(8))
    with pytest.raises(UserError, match=message) as error:
        open_weights(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (1, "not valid JSON"),
        (11, "truncated or damaged"),
        (99_000_000, "truncated or damaged"),
        (100_000_001, "more than the 100,000,000"),
        (2**64 - 1, "more than the 100,000,000"),
    ],
)
def test_a_length_is_not_believed(tmp_path, write_header, length, message):
    """Nothing is allocated on a header's word."""
    path = write_header(tmp_path / "bad.safetensors", b"{}        ", length=length)
    tracemalloc.start()
    with pytest.raises(UserError, match=message):
        open_weights(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 21


@pytest.mark.parametrize("size", [0, 7])
def test_a_file_too_short_for_anything(tmp_path, size):
    (tmp_path / "bad.safetensors").write_bytes(bytes(size))
    with pytest.raises(UserError, match=f"no safetensors file: it has {size} bytes"):
        open_weights(tmp_path / "bad.safetensors")


def test_a_truncated_file(file):
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(UserError, match="truncated or damaged"):
        open_weights(file)


def test_a_type_that_torch_lacks_is_listed_but_not_read(tmp_path, write_header):
    path = write_header(tmp_path / "a.safetensors", {"a": entry(dtype="F4", shape=[4, 4])}, bytes(8))
    weights = open_weights(path)
    assert weights.tensors["a"].elements == 16
    with pytest.raises(UserError, match="stored as F4, which torch cannot read"):
        weights.read("a")


def test_a_tensor_larger_than_memory(tmp_path, write_header):
    """A sparse file keeps its word, and still nothing breaks."""
    size = 1 << 43
    path = write_header(tmp_path / "a.safetensors", {"a": entry(dtype="U8", shape=[1, size], offsets=[0, size])})
    os.truncate(path, path.stat().st_size + size)
    weights = open_weights(path)
    with pytest.raises(UserError, match="does not fit into memory"):
        weights.read("a")
    with pytest.raises(UserError, match="too much for an embedding"):
        next(weights.rows("a"))


def make_pipe(path):
    os.mkfifo(path)


def make_folder(path):
    path.mkdir()


def make_loop(path):
    path.symlink_to(path)


def make_link_to_a_device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [make_pipe, make_folder, make_loop, make_link_to_a_device])
def test_what_is_no_regular_file(tmp_path, make):
    path = tmp_path / "model.safetensors"
    make(path)
    for opened in (path, tmp_path):
        with pytest.raises(UserError):
            open_weights(opened)
