import errno
import hashlib
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spikeless.errors import UserError
from spikeless.files import (
    aside,
    cache_folder,
    content_hash,
    is_locked,
    locked,
    read_json,
    resumable,
    sha256,
    write_json,
    write_text,
)

HOLD = """
import sys, time
from pathlib import Path
from spikeless.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


@pytest.fixture
def holder():
    """Starts another process that holds a folder for some seconds; it is killed at the end of the test."""
    started = []

    def hold(folder: Path, seconds: float = 60) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLD, str(folder), str(seconds)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield hold
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


# --- one file ---


def test_write_text_makes_the_folder_and_replaces_the_file(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_text(path, "old")
    write_text(path, "new ü")
    assert path.read_bytes() == "new ü".encode()
    assert names(path.parent) == ["b.txt"]


@pytest.mark.parametrize("target", ["os.fsync", "pathlib.Path.replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, target):
    path = tmp_path / "b.txt"
    write_text(path, "old")
    monkeypatch.setattr(target, full)
    with pytest.raises(UserError, match=r"cannot write .*b\.txt: No space left on device"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["b.txt"]


def test_a_path_that_is_not_unicode_survives_in_json(tmp_path):
    path = tmp_path / "b.txt"
    write_json(path, {"data": "text:caf\udce9/*.txt"})
    assert read_json(path) == {"data": "text:caf\udce9/*.txt"}
    assert names(tmp_path) == ["b.txt"]


def test_an_interrupt_between_writing_and_renaming_leaves_the_old_file(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    path = tmp_path / "b.txt"
    write_text(path, "old")
    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["b.txt"]


def test_the_content_is_flushed_before_the_name_appears(tmp_path, monkeypatch):
    """A crash right after the rename must not leave an empty file: fsync of the file, rename, fsync of the folder."""
    order = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr("os.fsync", lambda descriptor: (order.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (order.append("rename"), replace(self, to))[1])
    write_text(tmp_path / "b.txt", "new")
    assert order == ["fsync", "rename", "fsync"]


def test_a_folder_that_is_a_file_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_text(tmp_path / "file" / "b.txt", "new")


def test_json_is_read_back(tmp_path):
    data = {"a": [1, 2.5, None, "ü"], "b": {"c": True}}
    write_json(tmp_path / "a.json", data)
    assert read_json(tmp_path / "a.json") == data


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": math.nan})
    assert read_json(tmp_path / "a.json") == 1


@pytest.mark.parametrize(("content", "message"), [(None, "cannot read"), ("{", "not valid JSON"), (b"\xff", "valid")])
def test_unreadable_json_is_a_user_error(tmp_path, content, message):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        read_json(path)


# --- one folder ---


def test_aside_publishes_the_whole_folder_at_the_end(tmp_path):
    with aside(tmp_path / "out") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a.txt").write_text("a")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "sub" / "a.txt").read_text() == "a"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_aside_discards_on_an_exception(tmp_path, error):
    with pytest.raises(error), aside(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("a")
        raise error
    assert names(tmp_path) == []


def test_aside_never_overwrites(tmp_path):
    for content in ("first", "second"):
        with aside(tmp_path / "out") as folder:
            (folder / "a.txt").write_text(content)
    assert (tmp_path / "out" / "a.txt").read_text() == "first"
    assert names(tmp_path) == ["out"]


def test_aside_on_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="No space left on device"), aside(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("a")
    assert names(tmp_path) == []


# --- locks ---


def test_a_second_process_is_refused(tmp_path, holder):
    holder(tmp_path / "run")
    with pytest.raises(UserError, match="in use by another process"), locked(tmp_path / "run"):
        pass


def test_a_second_holder_in_the_same_process_is_refused(tmp_path):
    with (
        locked(tmp_path),
        pytest.raises(UserError, match="in use"),
        locked(tmp_path),
    ):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path, holder):
    process = holder(tmp_path / "run")
    process.send_signal(signal.SIGKILL)
    process.wait()
    with locked(tmp_path / "run"):
        pass


def test_waiting_for_the_lock(tmp_path, holder):
    process = holder(tmp_path / "run", seconds=0.2)
    with locked(tmp_path / "run", wait=True):
        assert process.wait(timeout=10) == 0


@pytest.mark.parametrize("error", [None, RuntimeError])
def test_the_lock_is_given_back(tmp_path, error):
    try:
        with locked(tmp_path):
            if error:
                raise error
    except RuntimeError:
        pass
    with locked(tmp_path):
        pass


def test_who_looks_at_the_lock_is_told_and_changes_nothing(tmp_path):
    run = tmp_path / "run"
    assert not is_locked(run)
    assert not run.exists()
    with locked(run):
        assert is_locked(run)
    assert not is_locked(run)
    (run / ".lock").chmod(0o444)
    assert not is_locked(run)
    assert names(run) == [".lock"]


def test_the_lock_of_a_living_process_is_seen_until_it_is_killed(tmp_path, holder):
    process = holder(tmp_path)
    assert is_locked(tmp_path)
    process.kill()
    process.wait()
    assert not is_locked(tmp_path)


@pytest.mark.parametrize(("before", "inside"), [(False, False), (True, False), (False, True)])
def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path, before, inside):
    run = tmp_path / "run"
    if before:
        run.mkdir()
    with pytest.raises(RuntimeError), locked(run):
        if inside:
            (run / "file").write_text("")
        raise RuntimeError
    assert run.exists() is (before or inside)


def test_a_lock_where_no_folder_can_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"), locked(tmp_path / "file"):
        pass


# --- hashes and the cache ---


def test_content_hash_tells_where_a_part_ends():
    assert content_hash("ab", "c") != content_hash("a", "bc")
    assert content_hash("a", "") != content_hash("a")
    assert content_hash("é") == content_hash("é".encode())
    assert content_hash("a") == hashlib.sha256(b"\x01" + bytes(7) + b"a").hexdigest()


def test_content_hash_takes_any_string():
    assert content_hash("\ud800") != content_hash("?")


def test_sha256_of_a_file_longer_than_a_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr("spikeless.files.CHUNK_BYTES", 10)
    (tmp_path / "a").write_bytes(bytes(range(256)))
    assert sha256(tmp_path / "a") == hashlib.sha256(bytes(range(256))).hexdigest()


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKELESS_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("SPIKELESS_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "spikeless"


def test_tests_do_not_use_the_users_cache(session_cache):
    assert cache_folder() == session_cache


def test_a_resumable_folder_keeps_its_lock_until_it_is_published(tmp_path, monkeypatch):
    """Otherwise another process would begin in the folder that is about to be renamed."""
    folder, seen = tmp_path / "out", []
    rename = type(folder).rename
    monkeypatch.setattr(
        type(folder), "rename", lambda self, to: seen.append((self / ".lock").exists()) or rename(self, to)
    )
    with resumable(folder) as work:
        (work / "a").write_text("x")
    assert seen == [True]
    assert names(folder) == ["a"]


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0o002, 0o664, 0o775)]
)
@pytest.mark.parametrize("publish", [aside, resumable])
def test_what_is_published_has_the_permissions_of_the_users_umask(publish, umask, file, folder, tmp_path):
    """Libraries write weights through temporary files that nobody else may read."""
    before = os.umask(umask)
    try:
        with publish(tmp_path / "made") as made:
            (made / "inner").mkdir(mode=0o700)
            (made / "inner" / "weights").touch(mode=0o600)
        write_text(tmp_path / "text", "")
    finally:
        os.umask(before)
    modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.rglob("*")}
    assert modes == {"made": folder, "inner": folder, "weights": file, "text": file}
