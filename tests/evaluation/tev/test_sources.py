"""Our own runs, and names on the hub."""

import http.server
import json
import threading

import pytest
import torch

from spikeless.config import replace_at
from spikeless.errors import UserError
from spikeless.evaluation.tev import find_sources, measure
from spikeless.training.loop import train

RUNS = [("gpt2", ()), ("gpt2", ("scaled_embed", "embed_detach")), ("gpt2", ("embed_norm",)), ("llama", ("embed_norm",))]


@pytest.fixture(scope="module")
def run_of(tiny_run, tmp_path_factory):
    """Trains a run of four steps with a checkpoint at each second one."""

    def make(family, techniques):
        folder = tmp_path_factory.mktemp("run")
        (folder / "text.txt").write_text("the cat sat on the mat, the dog on the rug. " * 60)
        settings = {
            "steps": 4,
            "checkpoint.every": 2,
            "metrics.every": 1,
            "metrics.loggers": ("jsonl",),
            "evaluation.tokens": 64,
            "model.vocab_size": None,
            "data.spec": f"text:{folder}/*.txt",
            "data.tokenizer": "bytes",
            "data.batch_size": 2,
            "device": "cpu",
            "precision": "fp32",
            "optim.lr": 0.05,
            "checkpoint.keep_last": 3,
        }
        return train(replace_at(tiny_run(family, *techniques), settings), folder / "run").folder

    return make


@pytest.mark.parametrize(("family", "techniques"), RUNS)
def test_a_run_gives_its_trajectory_as_it_was_logged(run_of, family, techniques):
    folder = run_of(family, techniques)
    logged = {row["step"]: row for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())}
    found = [measure(source) for source in find_sources(str(folder))]
    assert [each.step for each in found] == [2, 4]
    assert found[0].mean != found[1].mean
    for each in found:
        row = logged[each.step]
        assert each.mean == pytest.approx(row["tev/mean"], rel=1e-6)
        assert each.std == pytest.approx(row["tev/std"], rel=1e-5)
        assert each.effective_mean == pytest.approx(row["tev/effective_mean"], rel=1e-6)
        assert each.effective_std == pytest.approx(row["tev/effective_std"], rel=1e-4)
    (alone,) = find_sources(str(folder / "checkpoints" / "step-00000002"))
    assert measure(alone).effective_mean == found[0].effective_mean
    assert alone.step == 2


def test_a_run_with_a_part_from_outside_has_a_raw_tev(run_of):
    folder = run_of("gpt2", ())
    stored = json.loads((folder / "run.json").read_text())
    stored["config"]["model"]["embedding"]["type"] = "my_lab.tables:Table"
    (folder / "run.json").write_text(json.dumps(stored))
    found = measure(find_sources(str(folder))[0])
    assert found.mean > 0
    assert found.effective_mean is None
    assert found.entry.startswith("unknown")


def test_a_runs_head_is_known(run_of):
    assert measure(find_sources(str(run_of("gpt2", ())))[-1]).tied is True
    assert measure(find_sources(str(run_of("gpt2", ("embed_std_one",))))[-1]).tied is False


def test_a_run_without_checkpoints(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match="a run without checkpoints"):
        find_sources(str(tmp_path))


# --- the hub ---


@pytest.fixture
def hub(tmp_path, monkeypatch, folder):
    """A server that gives ranges of files, as the hub does; `requests` are what it was asked for."""
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    served = folder({"wte.weight": torch.randn(50, 8), "h.0.weight": torch.zeros(1000)}, {"model_type": "gpt2"})
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = served / self.path.removeprefix("/owner/name/resolve/main/")
            if not path.is_file():
                return self.send_error(404)
            raw, asked = path.read_bytes(), self.headers.get("Range")
            begin, end = map(int, asked.removeprefix("bytes=").split("-"))
            part = raw[begin : end + 1]
            requests.append((path.name, len(part)))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{begin + len(part) - 1}/{len(raw)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)
            return None

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    yield served, requests
    server.shutdown()
    server.server_close()


def test_a_hub_name_fetches_headers_and_the_table_alone(hub, read):
    served, requests = hub
    assert read("owner/name").mean == read(served).mean
    assert read("owner/name").entry == "none"
    fetched = sum(size for name, size in requests if name == "model.safetensors")
    assert fetched < 2 * (50 * 8 * 4 + 300)


def test_a_hub_name_that_does_not_exist(hub, read):
    with pytest.raises(UserError, match="owner/nothing: neither a path here nor a repository"):
        read("owner/nothing")


def test_a_server_without_ranges_is_not_made_to_send_everything(hub, read, monkeypatch):
    monkeypatch.setattr(http.server.BaseHTTPRequestHandler, "send_response", _say_200)
    with pytest.raises(UserError, match="answered 200 instead of 206"):
        read("owner/name")


def _say_200(self, code, message=None):
    self.send_response_only(200 if code == 206 else code, message)


def test_a_closed_network_is_told_at_once(hub, read, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(UserError, match=r"no such path, it is not in the hub's local cache, and the .* hub cannot"):
        read("owner/name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        read("owner/name")


def test_a_hub_name_in_the_local_cache(hub, read, tmp_path):
    served, requests = hub
    snapshot = tmp_path / "cache" / "models--owner--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    for path in served.iterdir():
        (snapshot / path.name).write_bytes(path.read_bytes())
    assert read("owner/name").mean == read(served).mean
    assert not requests


@pytest.mark.parametrize("name", ["./none", "none/", "a/b/c", "none.safetensors", "model.bin", "runs/../none", "~x"])
def test_what_is_no_hub_name_is_a_missing_path(read, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="there is no"):
        read(name)
