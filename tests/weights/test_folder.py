"""Folders: one file, shards with an index, links, the layout of the hub's cache, pickles."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model

from spikeless.errors import SpikelessWarning, UserError
from spikeless.weights import open_weights

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.mark.parametrize("inside", [".", "model.safetensors.index.json"])
def test_shards_are_read_as_one(sharded, inside):
    weights = open_weights(sharded / inside)
    expected = load_file(sharded / ONE) | load_file(sharded / TWO)
    assert weights.tensors.keys() == expected.keys()
    assert all(torch.equal(weights.read(name), tensor) for name, tensor in expected.items())
    assert weights.metadata == {"total_size": "84"}
    assert weights.tensors["b"].file == sharded / TWO


def test_a_folder_with_one_file(file):
    assert open_weights(file.parent).tensors == open_weights(file).tensors


def test_one_file_of_another_name(file):
    file.rename(file.with_name("adapter_model.safetensors"))
    assert "matrix" in open_weights(file.parent).tensors


def test_several_files_without_an_index(sharded):
    (sharded / "model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match=rf"has the shards {ONE}, {TWO}, but no model\.safetensors\.index\.json"):
        open_weights(sharded)
    (sharded / ONE).rename(sharded / "one.safetensors")
    with pytest.raises(UserError, match=f"has several: {TWO}, one.safetensors; name one"):
        open_weights(sharded)


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(UserError, match=r"holds no \.safetensors file"):
        open_weights(tmp_path)


def test_a_tensor_that_the_index_does_not_name_is_there_all_the_same(sharded, rewrite_index):
    rewrite_index(sharded, {"a": ONE, "b": TWO})
    assert set(open_weights(sharded).tensors) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": ONE, "b": ONE, "c": TWO}, f"'b' should be in {ONE}, but is not"),
        ({"a": ONE, "d": TWO}, f"'d' should be in {TWO}, but is not"),
        ({"a": "model-00003-of-00002.safetensors"}, "there is no .*model-00003"),
        ({"a": "../model.safetensors"}, "no file of this folder"),
        ({"a": "x/../../model.safetensors"}, "no file of this folder"),
        ({"a": "/etc/passwd.safetensors"}, "no file of this folder"),
        ({"a": "config.json"}, "no file of this folder"),
        ({"a": "a\x00.safetensors"}, "no file of this folder"),
        ({"a": ""}, "no file of this folder"),
        ({"a": 3}, "no file of this folder"),
        ({"a": [ONE]}, "no file of this folder"),
        ({"\x1b[2J": ONE}, "no file of this folder"),
        ({"a": "x" * 5000 + ".safetensors"}, "cannot read"),
        ({}, "expected a weight_map"),
        (None, "expected a weight_map"),
        ([], "expected a weight_map"),
    ],
)
def test_an_index_that_does_not_agree_with_its_folder(sharded, rewrite_index, weight_map, message):
    rewrite_index(sharded, weight_map)
    with pytest.raises(UserError, match=message):
        open_weights(sharded)


@pytest.mark.parametrize("wanted", [ONE, TWO])
def test_the_index_decides_where_two_files_have_a_tensor(sharded, rewrite_index, wanted):
    save_file({"a": torch.zeros(1), "d": torch.zeros(1)}, sharded / ONE)
    save_file({"a": torch.ones(1), "b": torch.zeros(5)}, sharded / TWO)
    rewrite_index(sharded, {"a": wanted, "b": TWO, "d": ONE})
    assert torch.equal(open_weights(sharded).read("a"), load_file(sharded / wanted)["a"])
    rewrite_index(sharded, {"d": ONE, "b": TWO})
    with pytest.raises(UserError, match=f"'a' is in {ONE} and in {TWO}, and .* names neither"):
        open_weights(sharded)


# --- what else lies in the folder ---


def test_a_single_file_beside_an_index_of_others_is_refused(sharded, rewrite_index):
    save_file({"a": torch.zeros(4, 3)}, sharded / "model.safetensors")
    with pytest.raises(UserError, match=r"has both model\.safetensors and model\.safetensors\.index\.json.*is stale"):
        open_weights(sharded)
    rewrite_index(sharded, {"a": "model.safetensors", "b": TWO})
    with pytest.warns(SpikelessWarning, match=rf"model\.safetensors are read; {ONE} not"):
        assert torch.equal(open_weights(sharded).read("a"), torch.zeros(4, 3))


@pytest.mark.parametrize("name", ["consolidated.safetensors", "model-00003-of-00009.safetensors"])
@pytest.mark.parametrize("whole", [True, False])
def test_files_that_are_not_read_are_named(file, sharded, name, whole):
    folder = file.parent if whole else sharded
    save_file({"z": torch.zeros(1)}, folder / name)
    (folder / "optimizer.safetensors").touch()
    with pytest.warns(SpikelessWarning, match=f"read; {name} not"):
        assert "z" not in open_weights(folder).tensors


def test_a_second_index(sharded):
    shutil.copy(sharded / "model.safetensors.index.json", sharded / "consolidated.safetensors.index.json")
    assert set(open_weights(sharded).tensors) == {"a", "b", "c"}
    (sharded / "model.safetensors.index.json").rename(sharded / "model.fp16.safetensors.index.json")
    with pytest.raises(UserError, match=r"has several: consolidated.*, model\.fp16.*; name one"):
        open_weights(sharded)


def test_pickles_beside_safetensors_are_passed_over(file):
    (file.parent / "pytorch_model.bin").touch()
    assert "matrix" in open_weights(file.parent).tensors


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], "holds an adapter.*merge_and_unload"),
        (["adapter_config.json", "model.safetensors"], "holds an adapter"),
        (["model.Q4.gguf"], r"model\.Q4\.gguf is GGUF.*gguf_file=FILE"),
        (["__0_0.distcp", ".metadata"], r"__0_0\.distcp is a distributed checkpoint"),
        (["optimizer.pt", "pytorch_model.bin", "training_args.bin"], r"pytorch_model\.bin: it is a pickle"),
    ],
)
def test_other_kinds_are_named(tmp_path, names, message):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=message):
        open_weights(tmp_path)
    if names[0].endswith(".gguf"):
        with pytest.raises(UserError, match=message):
            open_weights(tmp_path / names[0])


# --- names ---


@pytest.mark.parametrize("wrap", ["_orig_mod.{}", "module.{}", "module._orig_mod.{}", "_orig_mod.module.module.{}"])
def test_what_wrapped_the_model_is_left_out_of_the_names(tmp_path, wrap):
    tensors = {"model.0.weight": torch.ones(2), "head.weight": torch.zeros(3)}
    save_file({wrap.format(name): each for name, each in tensors.items()}, tmp_path / "model.safetensors")
    weights = open_weights(tmp_path)
    assert {name: weights.read(name).sum().item() for name in weights.tensors} == {
        "model.0.weight": 2,
        "head.weight": 0,
    }


def test_wrappers_of_blocks_too_but_a_part_called_module_stays(tmp_path):
    tensors = {"layers.0._orig_mod.weight": torch.ones(1), "layers.1._checkpoint_wrapped_module.weight": torch.ones(1)}
    save_file(tensors | {"module.weight": torch.ones(1)}, tmp_path / "model.safetensors")
    assert open_weights(tmp_path).tensors.keys() == {"layers.0.weight", "layers.1.weight", "module.weight"}
    save_file(tensors | {"layers.0.weight": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"layers\.0\._orig_mod\.weight and layers\.0\.weight are the same"):
        open_weights(tmp_path)


def test_names_that_save_model_left_to_the_metadata(tmp_path):
    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(5, 3), "head": torch.nn.Linear(3, 5, bias=False)})
    model["head"].weight = model["embed"].weight
    save_model(model, str(tmp_path / "model.safetensors"))
    weights = open_weights(tmp_path)
    assert len(load_file(tmp_path / "model.safetensors")) == 1
    assert all(torch.equal(weights.read(f"{name}.weight"), model["embed"].weight) for name in ("embed", "head"))


@pytest.mark.parametrize("raw", [b"{", b"[]", b'{"weight_map": {"a": "x", "a": "y"}}', b"\xff", b"[" * 100_000])
def test_an_index_that_is_no_index(sharded, raw):
    (sharded / "model.safetensors.index.json").write_bytes(raw)
    with pytest.raises(UserError, match=r"model\.safetensors\.index\.json"):
        open_weights(sharded)


# --- links ---


def test_a_link_out_of_the_folder_is_refused(sharded, tmp_path):
    shutil.move(sharded / TWO, tmp_path / "elsewhere.safetensors")
    (sharded / TWO).symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(UserError, match="leads out of its folder"):
        open_weights(sharded)


def test_a_link_inside_the_folder(sharded):
    (sharded / "real").mkdir()
    shutil.move(sharded / TWO, sharded / "real" / TWO)
    (sharded / TWO).symlink_to(f"real/{TWO}")
    assert "b" in open_weights(sharded).tensors


def test_a_link_that_the_user_names(file, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "link.safetensors").symlink_to(file)
    assert "matrix" in open_weights(tmp_path / "deep" / "link.safetensors").tensors


def test_a_folder_that_is_a_link(sharded, tmp_path):
    (tmp_path / "link").symlink_to(sharded)
    assert "b" in open_weights(tmp_path / "link").tensors


@pytest.fixture
def snapshot(sharded, tmp_path):
    """The cache of the hub: names in `snapshots/REVISION` are links to `blobs/HASH`."""
    repository = tmp_path / "models--owner--name"
    (repository / "blobs").mkdir(parents=True)
    folder = repository / "snapshots" / "abc"
    folder.mkdir(parents=True)
    for number, path in enumerate(sorted(sharded.iterdir())):
        path.rename(repository / "blobs" / f"hash{number}")
        (folder / path.name).symlink_to(f"../../blobs/hash{number}")
    return folder


def test_the_cache_of_the_hub(snapshot):
    assert set(open_weights(snapshot).tensors) == {"a", "b", "c"}


def test_blobs_of_another_repository_are_refused(snapshot):
    repository = snapshot.parents[1]
    other = repository.with_name("models--owner--other")
    (other / "blobs").mkdir(parents=True)
    (snapshot / TWO).resolve().rename(other / "blobs" / "hash")
    (snapshot / TWO).unlink()
    (snapshot / TWO).symlink_to("../../../models--owner--other/blobs/hash")
    with pytest.raises(UserError, match="leads out of its folder"):
        open_weights(snapshot)


def test_blobs_that_are_a_link_are_refused(snapshot, tmp_path):
    blobs = snapshot.parents[1] / "blobs"
    blobs.rename(tmp_path / "private")
    blobs.symlink_to(tmp_path / "private")
    with pytest.raises(UserError, match="leads out of its folder"):
        open_weights(snapshot)


# --- files beside the tensors ---


def test_json_beside_the_tensors(sharded, tmp_path):
    weights = open_weights(sharded)
    assert weights.json("config.json") is None
    (sharded / "config.json").write_text('{"vocab_size": 4, "limit": Infinity}')
    assert weights.json("config.json") == {"vocab_size": 4, "limit": float("inf")}
    (sharded / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: not valid JSON"):
        weights.json("config.json")
    (sharded / "config.json").unlink()
    (sharded / "config.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(UserError, match="leads out of its folder"):
        weights.json("config.json")


# --- pickles ---


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_pickles_are_refused_with_the_way_out(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(UserError, match=r"pickle, which can run code.*save_pretrained.*weights_only=True"):
            open_weights(path)


@pytest.mark.parametrize("inside", [None, "model", "state_dict"])
def test_the_way_out_leads_out(tmp_path, monkeypatch, inside):
    """The one line that the message gives makes a file that is read; of nanoGPT's and Lightning's checkpoints too."""
    table = torch.randn(3, 2)
    state = {"a": table, "b": table}
    torch.save(state if inside is None else {inside: state, "step": 3, "optimizer": {}}, tmp_path / "model.pt")
    with pytest.raises(UserError) as error:
        open_weights(tmp_path / "model.pt")
    line = str(error.value).rpartition("or `")[2].removesuffix("`")
    monkeypatch.chdir(tmp_path)
    import safetensors.torch

    exec(line, {"safetensors": safetensors, "torch": torch})
    assert torch.equal(open_weights(tmp_path / "model.safetensors").read("b"), table)
