import pytest

from spikeless.errors import UserError
from spikeless.files import locked
from spikeless.report import find_runs, read_run, read_runs


def test_runs_are_found_at_any_depth_each_once(write_run, tmp_path):
    for name in ("a", "a/inner", "deep/er/b"):
        write_run(name)
    write_run("a/checkpoints/step-1")  # not a run of its own
    write_run(".c.partial")
    (tmp_path / "deep" / "link").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "deep" / "circle").symlink_to(tmp_path / "deep", target_is_directory=True)
    assert [str(each.relative_to(tmp_path)) for each in find_runs(tmp_path)] == ["a", "a/inner", "deep/er/b"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "link").symlink_to(tmp_path / "deep" / "er", target_is_directory=True)
    assert find_runs(elsewhere) == [elsewhere / "link" / "b"]


def test_where_there_is_none_it_says_where_it_looked(tmp_path, monkeypatch):
    (tmp_path / "notes" / "more").mkdir(parents=True)
    with pytest.raises(UserError, match=rf"no run.json in {tmp_path}/notes, nor in the 1 folder below it"):
        find_runs(tmp_path / "notes")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"there is no such folder in {tmp_path}"):
        find_runs(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", "{"),
        ("run.json", "[]"),
        ("run.json", '{"recipe": "x"}'),
        ("run.json", '{"recipe": "x", "label": "x", "techniques": [], "config": {}, "diff": [1]}'),
        ("status.json", "nonsense"),
        ("environment.json", "\udcff"),
        ("metrics.jsonl", "half\n{}\n"),
    ],
)
def test_a_damaged_folder_is_named_and_the_others_are_read(file, content, write_run, tmp_path):
    good, bad = write_run("good"), write_run("bad")
    (bad / file).write_text(content, errors="surrogateescape")
    records, damages = read_runs([tmp_path])
    assert [record.folder for record in records] == [good]
    assert [str(bad / file) in each for each in damages] == [True]
    with pytest.raises(UserError, match=file):
        read_runs([bad])


def test_a_run_that_nobody_holds_any_more_was_killed(write_run, training_rows):
    folder = write_run(state="running", rows=training_rows(30))
    assert read_run(folder).summary().outcome == "killed, step 30 of 40"
    with locked(folder):
        assert read_run(folder).summary().outcome == "running, step 30 of 40"
