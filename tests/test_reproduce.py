"""The commit of a result is its package's, and no file is ever half written."""

import subprocess

import pytest

from dmxlib.reproduce import facts, git_commit, whole


def test_commit_is_of_the_package(tmp_path):
    package, results = tmp_path / "dmxlib" / "unet.py", tmp_path / "results.csv"
    package.parent.mkdir()
    assert git_commit(package.parent) == "unknown"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x"]
    package.touch(), results.touch()
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    commit = git_commit(package.parent)
    assert len(commit) == 12
    results.write_text("new")
    assert git_commit(package.parent) == commit
    package.write_text("new")
    assert git_commit(package.parent) == f"{commit}-dirty"


def test_facts_of_a_result():
    about = facts("python -m dmxlib.demo", songs=3)
    assert about["command"] == "python -m dmxlib.demo" and about["songs"] == 3
    assert about.keys() >= {"commit", "torch", "machine", "date"}
    assert "pytest" in facts()["command"]  # the process's own


def test_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "scores.csv"
    with whole(path) as part:
        part.write_text("1,2")
        assert part.parent == path.parent and part.suffix == ".csv" and not path.exists()
    assert path.read_text() == "1,2" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_was_not_finished_goes_and_what_was_there_stays(tmp_path, kind):
    path = tmp_path / "old.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole(path) as part:
        if kind == "folder":
            part.mkdir()
            part = part / "file"
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_folder_appears_when_it_is_whole(tmp_path):
    with whole(tmp_path / "test-1") as part:
        (part / "page").mkdir(parents=True)
        (part / "page" / "index.html").write_text("hello")
    assert (tmp_path / "test-1" / "page" / "index.html").read_text() == "hello"
